"""In doubt: what may have been published and nobody knows; resolved by reading the sink back.

How it works: wait until the receiver refuses any request that may still be on its way (`core.in_doubt`), then read the
peer from a time before the first attempt up to the tip, and look for origin tags of events that came straight from this
region. What is there is done; what is not may be sent.

Why it is safe: before the wait is over nothing of the keys in question is sent, afterwards nothing old can arrive any
more, so absence from a complete reading is proof. Where the wait was chosen shorter, a bound was met, or the peer no
longer keeps what is so old, absence is no proof: by the link's choice the events are sent again and counted as possible
duplicates, or (not for a wait that was chosen) held until somebody changes that choice.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from replicator.core.in_doubt import Attempts, Dated, is_repeat_dropped
from replicator.core.model import Checkpoint, Origin, Region
from replicator.errors import TransientError
from replicator.ports import NOT_KEPT, Found
from replicator.worker.link import Link
from replicator.worker.lookups import Lookup, Lookups, SenderAndOrigin
from replicator.worker.span import Item

logger = structlog.get_logger(__name__)

UNASKED = Found(frozenset(), is_complete=False, records_read=0, why="in_doubt is resend")
WHAT_TO_DO = "set in_doubt_beyond to resend (they may be there twice then) and restart, or compare the regions by hand"


class Recovery:
    """Finds published events of one (link, shard) in the peer."""

    def __init__(self, link: Link, here: Region, sender_and_origin: SenderAndOrigin) -> None:
        self._link = link
        self.here = here
        self._sender_and_origin = sender_and_origin
        self.held = 0
        """How many lookups are held, because the peer can't give certainty and nothing may be sent without."""

    async def find_request(self, request: Dated, wanted: Mapping[Origin, str]) -> Found:
        """Those of ``wanted`` (with their partition keys) that a request of this date has stored.

        Not complete when absence is no proof.
        """
        if self._link.settings.in_doubt == "resend":
            return UNASKED
        is_safe = await self._outwait_request(request)
        found = await self._look(self._link.requests, request.peer_ms, wanted.__contains__, frozenset(wanted.values()))
        missing = len(wanted) - len(found.origins)
        self._link.count("in_doubt_resolved_total", len(found.origins), outcome="stored")
        self._link.count("in_doubt_resolved_total", missing, outcome="absent")
        return _as_proof(found, is_safe=is_safe)

    def unproven_request(self, request: Dated) -> Attempts:
        """When what a request of this date carries may have been stored."""
        return Attempts(request.peer_ms, request.peer_ms + self._link.fence.safe_wait_ms(request.lifetime_ms))

    def unproven_owner(self, floor_ms: int, lifetime_ms: int | None) -> Attempts:
        """The same for what a former owner has sent; it sends nothing more, and the peer's clock is known."""
        now = self._link.peer_estimate()
        assert now is not None, "nothing is attempted before the peer has answered"
        return Attempts(floor_ms, now.latest_ms + self._link.fence.safe_wait_ms(lifetime_ms))

    def count_repeated(self, items: Sequence[Item]) -> None:
        """Those of the items that were just stored, and may have been before."""
        now, dropped_ms = self._link.peer_estimate(), self._link.sink.limits.repeats_dropped_ms
        assert now is not None, "the peer has just answered"
        rules = self._link.settings.fence
        doubts = [item.doubt for item in items if item.doubt is not None]
        possible = sum(not is_repeat_dropped(doubt, now, dropped_ms, rules) for doubt in doubts)
        self._link.count("possible_duplicates_total", possible)

    async def find_since(
        self, durable: Checkpoint, lifetime_ms: int | None, is_wanted: Callable[[Origin], bool]
    ) -> Found:
        """What this region has stored in the peer since the checkpoint's attempt floor, after its owner was lost.

        ``lifetime_ms`` of its requests, None when nothing is known of it. Not complete when absence is no proof.
        """
        assert durable.attempt_floor_ms is not None, "nothing was attempted, so nothing is looked up"
        if self._link.settings.in_doubt == "resend":
            self._link.count("takeovers_unverified_total")
            return UNASKED
        is_safe = await self._outwait(durable, lifetime_ms)
        found = await self._look(self._link.takeovers, durable.attempt_floor_ms, is_wanted, None)
        self._link.count("in_doubt_resolved_total", len(found.origins), outcome="stored")
        proof = _as_proof(found, is_safe=is_safe)
        if not proof.is_complete:
            self._link.count("takeovers_unverified_total")
        return proof

    async def _outwait_request(self, request: Dated) -> bool:
        """Until the peer's own clock is past what it takes of this date; whether that is sure.

        This wait and the next are judged once more when they are over: by then the peer's clock was watched for longer.
        """
        while True:
            wait_ms, is_safe = self._link.fence.wait_ms(request.lifetime_ms)
            left_ms = request.peer_ms + wait_ms - (await self._link.peer_time()).earliest_ms
            if left_ms <= 0:
                return is_safe
            await asyncio.sleep(left_ms / 1000)

    async def _outwait(self, durable: Checkpoint, lifetime_ms: int | None) -> bool:
        """Until the peer takes nothing of a former owner any more; whether that is sure.

        Who released the lease had nothing under way.
        """
        if durable.released is not None:
            return True
        begun_s = _now_s()
        while True:
            wait_ms, is_safe = self._link.fence.wait_ms(None if await self._is_ahead(durable) else lifetime_ms)
            left_s = begun_s + wait_ms / 1000 - _now_s()
            if left_s <= 0:
                return is_safe
            await asyncio.sleep(left_s)

    async def _is_ahead(self, durable: Checkpoint) -> bool:
        """Whether the floor is from the peer's future: then its clock went back, and requests live longer."""
        return (durable.attempt_floor_ms or 0) > (await self._link.peer_time()).latest_ms

    async def _look(
        self,
        lookups: Lookups,
        since_ms: int,
        is_wanted: Callable[[Origin], bool],
        keys: frozenset[str] | None,
    ) -> Found:
        """What the peer says, when it says it for sure, or when that does not matter."""
        is_held = False
        try:
            while True:
                found = await self._read_back(lookups, since_ms, is_wanted, keys)
                if found.is_complete:
                    return found
                logger.error(
                    "in_doubt.beyond",
                    link=self._link.name,
                    why=found.why,
                    records_read=found.records_read,
                    policy=self._link.settings.in_doubt_beyond,
                    do=WHAT_TO_DO if self._link.settings.in_doubt_beyond == "hold" else "compare the regions",
                )
                if self._link.settings.in_doubt_beyond == "resend":
                    return found
                self.held += not is_held
                is_held = True
                await self._hold(found)
        finally:
            self.held -= is_held

    async def _hold(self, found: Found) -> None:
        """Until it is worth to look again; what the peer no longer keeps it will not keep later either."""
        await asyncio.sleep(self._link.settings.hold_retry_s)
        while found.why == NOT_KEPT:
            logger.error("in_doubt.held", link=self._link.name, why=found.why, do=WHAT_TO_DO)
            await asyncio.sleep(self._link.settings.hold_retry_s)

    async def _read_back(
        self,
        lookups: Lookups,
        since_ms: int,
        is_wanted: Callable[[Origin], bool],
        keys: frozenset[str] | None,
    ) -> Found:
        margin_ms = self._link.settings.fence.margin_ms
        while True:
            await self._link.wait_open()
            told = await self._link.peer_time()
            lookup = Lookup(
                here=self.here,
                is_wanted=is_wanted,
                sender_and_origin=self._sender_and_origin,
                # Arrivals are stamped by other machines of the peer than those whose clock was told.
                since_ms=max(0, since_ms - margin_ms),
                until_ms=told.latest_ms + margin_ms,
                keys=keys,
            )
            try:
                return await lookups.find(lookup)
            except TransientError as exc:
                logger.info("in_doubt.peer_unreachable", link=self._link.name, error=str(exc))
                self._link.failed(exc)


def _as_proof(found: Found, *, is_safe: bool) -> Found:
    if found.is_complete and is_safe:
        return found
    return Found(found.origins, False, found.records_read, found.why or "the wait was chosen short")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
