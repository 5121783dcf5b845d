"""In doubt: what may have been published and nobody knows; resolved by reading the sink back.

How it works: wait until the receiver would refuse any request that may still be on its way (``in_doubt_wait_s`` after
it was signed), then read the peer from a time before the first attempt up to the tip, and look for origin tags of
events that came straight from this region. What is there is done; what is not may be sent.

Why it is safe: before the wait is over nothing of the keys in question is sent, afterwards nothing old can arrive any
more, so absence from a complete reading is proof. A reading that hit a bound is no proof: what it did not find is
sent again and counted as possible duplicates.
"""

import asyncio
from collections.abc import Callable, Collection

import structlog

from replicator.core.model import Origin, Region
from replicator.errors import TransientError
from replicator.ports import Clock, Found
from replicator.worker.link import Link

logger = structlog.get_logger(__name__)

NOTHING: frozenset[Origin] = frozenset()


class Recovery:
    """Finds published events of one (link, shard) in the peer."""

    def __init__(
        self,
        link: Link,
        here: Region,
        sender_and_origin: Callable[[bytes], tuple[Region, Origin] | None],
        clock: Clock,
    ) -> None:
        self._link = link
        self._here = here
        self._sender_and_origin = sender_and_origin
        self._clock = clock

    async def find_request(self, sent_ms: int, wanted: Collection[Origin]) -> Collection[Origin]:
        """Those of ``wanted`` that a request signed at ``sent_ms`` (our clock) has stored."""
        settings = self._link.settings
        if settings.in_doubt == "resend":
            self._link.count("possible_duplicates_total", len(wanted))
            return NOTHING
        age_s = (self._clock.now_ms() - sent_ms) / 1000
        await asyncio.sleep(settings.in_doubt_wait_s - age_s)
        since_ms = await self._link.peer_now_ms() - (self._clock.now_ms() - sent_ms)
        found = await self._read_back(since_ms, lambda origin: origin in wanted)
        return self._judge(found, len(wanted))

    async def find_since(self, floor_ms: int) -> Collection[Origin]:
        """Everything this region has stored in the peer since ``floor_ms`` (peer's clock), after an owner was lost."""
        settings = self._link.settings
        if settings.in_doubt == "resend":
            self._link.count("takeovers_unverified_total")
            return NOTHING
        await asyncio.sleep(settings.in_doubt_wait_s)
        found = await self._read_back(floor_ms, lambda _: True)
        return self._judge(found, None)

    def _judge(self, found: Found, wanted: int | None) -> Collection[Origin]:
        self._link.count("in_doubt_resolved_total", len(found.origins), outcome="stored")
        if wanted is not None:
            missing = wanted - len(found.origins)
            self._link.count("in_doubt_resolved_total", missing, outcome="absent")
            if not found.is_complete:
                self._link.count("possible_duplicates_total", missing)
        elif not found.is_complete:
            self._link.count("takeovers_unverified_total")
        if not found.is_complete:
            logger.error("in_doubt.incomplete", link=self._link.name, records_read=found.records_read)
        return found.origins

    async def _read_back(self, since_ms: int, is_wanted: Callable[[Origin], bool]) -> Found:
        def origin_of(data: bytes) -> Origin | None:
            sent = self._sender_and_origin(data)
            if sent is None or sent[0] != self._here or not is_wanted(sent[1]):
                return None
            return sent[1]

        while True:
            await self._link.wait_open()
            try:
                return await self._link.sink.read_back(
                    since_ms, origin_of, records_max=self._link.settings.read_back_records_max
                )
            except TransientError as exc:
                logger.info("in_doubt.peer_unreachable", link=self._link.name, error=str(exc))
                self._link.failed(exc)
