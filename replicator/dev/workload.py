"""Producers: numbered events into every region's hub, and a ledger of what was acknowledged.

Order per key is the producer's own business, as for any Kinesis producer: PutRecords keeps none among the
entries of a request, so a request carries one event of a key at most, one request is under way at a time, and
failed entries go back to the front. A request whose reply was lost is not repeated: its events stand in the
ledger as not acknowledged, and the home hub tells whether they were written.
"""

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)

from replicator.dev.checker import Written
from replicator.dev.clients import kinesis_client

REQUEST_MAX = 200
TICK_S = 0.05
RETRY_S = 0.3
CONNECT_S = 2.0
REPLY_S = 15.0
PAYLOAD_BYTES = (300, 800)
"""Bounds of the payload, so that an event has about 500 bytes to 1 KB."""
TYPES = ("order-placed", "order-paid", "order-packed", "order-shipped", "order-cancelled")
WORDS = ("amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "harbour", "isle", "juniper")


@dataclass(frozen=True, slots=True)
class Keys:
    """``hot`` keys take ``hot_share`` of the events. Half of the cold ones have one name in all regions."""

    hot: int = 5
    hot_share: float = 0.3
    cold: int = 1500

    def draw(self, region: str, rng: random.Random) -> str:
        if rng.random() < self.hot_share:
            return f"hot-{rng.randrange(self.hot)}"
        number = rng.randrange(self.cold)
        return f"order-{number}" if number % 2 else f"{region}-order-{number}"


@dataclass(slots=True)
class Ledger:
    """What was written, in the order of the requests; one for all producers."""

    events: list[Written] = field(default_factory=list)
    unknown: int = 0

    def record(self, events: Iterable[Written]) -> None:
        for event in events:
            self.events.append(event)
            self.unknown += not event.is_acknowledged


class Lost(Exception):
    """The request may have been served; its reply did not come."""


class NotStored(Exception):
    """The request was refused or never sent."""


class StreamClient:
    """PutRecords on one stream, without any retry of its own. Blocks."""

    def __init__(self, url: str, region: str, stream: str) -> None:
        # One attempt: a retry inside the client would repeat requests whose outcome is not known.
        self._client = kinesis_client(
            url,
            region,
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=REPLY_S,
        )
        self._stream = stream

    def put(self, events: Sequence[Written]) -> list[bool]:
        """Per event whether it was stored. Raises Lost or NotStored for the request as a whole."""
        records = [{"Data": event.data, "PartitionKey": event.key} for event in events]
        try:
            reply: dict[str, Any] = self._client.put_records(StreamName=self._stream, Records=records)
        except (EndpointConnectionError, ConnectTimeoutError) as exc:
            raise NotStored(str(exc)) from exc
        except HTTPClientError as exc:
            raise Lost(str(exc)) from exc
        except ClientError as exc:
            is_refused = exc.response["ResponseMetadata"]["HTTPStatusCode"] < 500
            raise (NotStored if is_refused else Lost)(str(exc)) from exc
        return ["ErrorCode" not in entry for entry in reply["Records"]]

    def close(self) -> None:
        self._client.close()


class Client(Protocol):
    """What a producer writes with."""

    def put(self, events: Sequence[Written]) -> list[bool]:
        """Per event whether it was stored. Raises Lost or NotStored for the request as a whole. Blocks."""
        ...


class Producer:
    """One region's services: at least ``count`` acknowledged events spread over the time until ``end_s`` of `run`.

    While paused nothing is sent; what is late is spread over the time that is left.
    """

    def __init__(
        self,
        client: Client,
        region: str,
        count: int,
        ledger: Ledger,
        *,
        keys: Keys,
        rng: random.Random,
        name: str | None = None,
    ) -> None:
        """``name``: what its events' ids and keys begin with, the region by default."""
        self.region = region
        self._name = name or region
        self._client = client
        self._count = count
        self._ledger = ledger
        self._keys = keys
        self._rng = rng
        self._made = 0
        self._key_seq: Counter[str] = Counter()
        self._pending: deque[Written] = deque()
        self._running = asyncio.Event()
        self._running.set()

    def pause(self) -> None:
        """Send nothing more; the request under way ends as it may."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def run(self, duration_s: float) -> None:
        """Write all events within ``duration_s`` if the hub takes them; return when all are written."""
        end_s = time.monotonic() + duration_s
        due = 0.0
        while self._made < self._count or self._pending:
            await self._running.wait()
            left_s = max(TICK_S, end_s - time.monotonic())
            due = min(self._count, max(due, self._made) + (self._count - self._made) * TICK_S / left_s)
            while self._made < int(due):
                self._pending.append(self._next())
            await asyncio.gather(asyncio.sleep(TICK_S), self._send_pending())

    async def _send_pending(self) -> None:
        while self._pending and self._running.is_set():
            if not await self._send(self._request()):
                await asyncio.sleep(RETRY_S)

    async def _send(self, request: list[Written]) -> bool:
        """Whether all is well; else wait a little before the next request."""
        try:
            stored = await asyncio.to_thread(self._client.put, request)
        except NotStored:
            self._pending.extendleft(reversed(request))
            return False
        except Lost:
            self._count += len(request)  # whether these are written nobody knows, so others are written as well
            self._ledger.record(
                Written(event.id, event.home, event.key, event.data, is_acknowledged=False) for event in request
            )
            return False
        self._ledger.record(event for event, is_stored in zip(request, stored, strict=True) if is_stored)
        failed = [event for event, is_stored in zip(request, stored, strict=True) if not is_stored]
        self._pending.extendleft(reversed(failed))
        return not failed

    def _request(self) -> list[Written]:
        """The first pending event of each key, up to the maximum; the others stay in their order."""
        request: dict[str, Written] = {}
        later: deque[Written] = deque()
        for event in self._pending:
            if event.key in request or len(request) == REQUEST_MAX:
                later.append(event)
            else:
                request[event.key] = event
        self._pending = later
        return list(request.values())

    def _next(self) -> Written:
        self._made += 1
        key = self._keys.draw(self._name, self._rng)
        self._key_seq[key] += 1
        event = {
            "id": f"{self._name}-{self._made}",
            "type": self._rng.choice(TYPES),
            "timestamp": time.time_ns() // 1_000_000,
            "key": key,
            "key_seq": self._key_seq[key],
            "home": self.region,
            "n": self._made,
            "payload": self._payload(),
        }
        return Written(f"{self._name}-{self._made}", self.region, key, json.dumps(event).encode())

    def _payload(self) -> str:
        size = self._rng.randint(*PAYLOAD_BYTES)
        return " ".join(self._rng.choices(WORDS, k=size // 6))[:size]
