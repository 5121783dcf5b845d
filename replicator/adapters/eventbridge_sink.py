"""An event bus in a peer region as a sink: one PutEvents a request.

A bus keeps no order and delivers at least once; it gives every event an id of its own, also one that is sent again, and
can't be read back.
"""

import time
from collections.abc import Sequence

from replicator.aws.dated_peer import DatedPeer
from replicator.aws.eventbridge_api import EventBridgeApi, Put
from replicator.aws.never_read_back import NeverReadBack
from replicator.aws.transport import ServiceError
from replicator.core.bus_entries import ENTRIES_MAX, REQUEST_BYTES_MAX, BusEntries, BusEntry
from replicator.core.peer_clock import PeerTime
from replicator.errors import InDoubt, Refused
from replicator.ports import Entry, SinkLimits

FOR_GOOD = frozenset(
    {"MalformedDetail", "InvalidArgument", "NotAuthorizedForSource", "NotAuthorizedForSourceException"}
)
"""Codes of an entry that never passes. Source: EventBridge API reference, PutEventsResultEntry."""


class EventBridgeSink(NeverReadBack):
    """Implements `ports.Sink`. ``entries`` makes what is put of the events."""

    why = "a bus can't be read back"

    def __init__(self, api: EventBridgeApi, *, entries: BusEntries, request_bytes_max: int = REQUEST_BYTES_MAX) -> None:
        self._api = api
        self._entries = entries
        self._limits = SinkLimits(ENTRIES_MAX, request_bytes_max, request_bytes_max)
        self._peer = DatedPeer(api.bus, api.ask)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:
        results: list[str | Refused | None] = [None] * len(entries)
        places, made = [], []
        for place, entry in enumerate(entries):
            try:
                made.append(self._entry(entry))
                places.append(place)
            except Refused as exc:
                results[place] = exc
        for place, put in zip(places, await self._put(made, signed_ms) if made else (), strict=True):
            results[place] = self._why(put)
        return results

    def _entry(self, entry: Entry) -> BusEntry:
        """Raises Refused."""
        made = self._entries.entry(entry.data)
        if made.size_bytes > self._limits.request_bytes_max:
            raise Refused(f"the entry has {made.size_bytes} bytes, a bus takes {self._limits.request_bytes_max}")
        return made

    async def _put(self, made: Sequence[BusEntry], signed_ms: int | None) -> Sequence[Put]:
        sent_ms = time.time_ns() // 1_000_000
        what = f"PutEvents on {self._api.bus}"
        size = sum(entry.size_bytes for entry in made)
        if size > self._limits.request_bytes_max:
            raise Refused(f"{what}: {size} bytes in one request, a bus takes {self._limits.request_bytes_max}")
        try:
            reply, puts = await self._api.put(made, signed_ms)
        except ServiceError as exc:
            raise Refused(f"{what}: {exc}") from exc
        except ValueError as exc:  # msgspec's errors are ValueErrors
            raise InDoubt(f"{what}: unusable answer: {exc}", sent_ms=sent_ms) from exc
        self._peer.answered(reply)
        return puts

    def _why(self, put: Put) -> str | Refused | None:
        if put.error_code not in FOR_GOOD:
            return put.error_code
        return Refused(f"bus {self._api.bus} takes no such event: {put.error_code} {put.error_message or ''}".rstrip())

    async def peer_time(self) -> PeerTime:
        return await self._peer.time()

    async def refuses(self, dated_ms: int) -> bool:
        return await self._peer.refuses(dated_ms)
