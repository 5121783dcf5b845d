"""What the former owner of a shard left behind on a link, and how long it matters.

How it works: a former owner may have published events behind the checkpoint. Either it said at its release that it left
nothing of the kind; or it marked them done in the claim store, and its release names the store's state at that time;
or nobody knows, and they are looked up in the sink. What is found there is done when it comes by.

Why it is safe: marks are relied on only within the very session that found the store as the release names it, only
while the store still remembers the oldest, and only for events it was asked about. When that ends before the events
have come by (a lost or rolled-back store, one that did not answer, a peer that was away for longer than the window),
they are looked up after all, before anything of them is sent. The former owner's attempt floor stands until then,
because the next owner may have to look as far back.
"""

import asyncio
from collections.abc import Awaitable, Callable

from replicator.core.in_doubt import Attempts, covers, promised_ms, wider
from replicator.core.model import After, Checkpoint, ClaimMark, Lifetime, Origin, ShardId
from replicator.ports import ClaimSession
from replicator.worker.claiming import Claiming
from replicator.worker.link import Link
from replicator.worker.recovery import Recovery

NOTHING_OPEN = ClaimMark("", 0)
"""The mark of a release that left nothing behind the checkpoint: whatever the claim store says, nothing is in doubt."""
MARKS_MARGIN_S = 10.0
"""So long before the claim store forgets them, marks are no longer relied on."""


class Heritage:
    """Of one (link, shard). ``durable`` is the checkpoint as it was found.

    ``shard`` is what origins of this shard's events name; None where they do not tell where an event stands in it.
    """

    def __init__(
        self, link: Link, durable: Checkpoint, claiming: Claiming, recovery: Recovery, shard: ShardId | None
    ) -> None:
        self._link = link
        self._shard = shard
        self._durable = durable
        self._claiming = claiming
        self._recovery = recovery
        self._promised_ms = promised_ms(durable, claiming.epoch)
        self._landed: set[Origin] = set()
        self._marked_in: ClaimSession | None = None
        self._marked_until_s = 0.0
        self.is_looking = False
        """Whether the sink is being read back."""
        self._was_unproven = False
        self.is_unproven = False
        """Whether what was not found in the sink may be there all the same, until `passed`."""

    @property
    def floor_ms(self) -> int | None:
        """The former owner's attempt floor, while it matters."""
        return self._durable.attempt_floor_ms if self._landed or self._marked_in is not None else None

    def lifetime(self) -> Lifetime | None:
        """What to record of requests that are ours, and of a former owner's whose end was not waited for."""
        ours_ms = self._link.fence.lifetime_ms
        lifetime_ms = wider(ours_ms, self._promised_ms) if self._was_unproven else ours_ms
        return None if lifetime_ms is None else Lifetime(lifetime_ms, self._claiming.epoch)

    def inherited(self) -> Lifetime | None:
        """What to record before any request is ours."""
        return None if self._promised_ms is None else Lifetime(self._promised_ms, self._claiming.epoch)

    def is_covered(self) -> bool:
        """Whether what is recorded already holds for our requests as well."""
        lifetime = self.lifetime()
        is_known = self._durable.attempt_floor_ms is not None and self._durable.released is None
        return is_known and covers(self._promised_ms, None if lifetime is None else lifetime.ms)

    async def take_over(self, session: ClaimSession | None) -> None:
        """Find out what there is; returns when it is known. ``session`` is None when the claim store is away."""
        released = self._durable.released
        if self._durable.attempt_floor_ms is None or released == NOTHING_OPEN:
            return
        if session is None or released is None or not _stands(released, session):
            await self._look_up()
            return
        self._marked_in = session
        self._marked_until_s = _now_s() + (session.remembers_ms - released.age_ms) / 1000 - MARKS_MARGIN_S

    @property
    def relies_on_marks(self) -> bool:
        """Whether what is done is known by marks of the former owner only."""
        return self._marked_in is not None

    def must_look_up(self, batch: int | None) -> bool:
        """Whether marks are relied on that say nothing of this batch: `look_up` before anything of it is sent."""
        if self._marked_in is None:
            return False
        return batch is None or self._claiming.session is not self._marked_in or _now_s() >= self._marked_until_s

    async def look_up(self, unless: Callable[[Awaitable[None]], Awaitable[None]]) -> bool:
        """Read the sink back instead of relying on marks; false when ``unless`` ended the reading before its end."""
        await unless(self._look_up())
        return self._marked_in is None

    async def _look_up(self) -> None:
        self._link.count("takeovers_in_doubt_total")
        self.is_looking = True
        try:
            found = await self._recovery.find_since(self._durable, self._promised_ms, self._is_wanted)
            self._landed = set(found.origins)
            self.is_unproven = self._was_unproven = not found.is_complete
        finally:
            self.is_looking = False
        self._marked_in = None

    def _is_wanted(self, origin: Origin) -> bool:
        """Whether the event may come by here: it was born behind the checkpoint of this shard, or elsewhere."""
        if self._shard is None or (origin.region, origin.source) != (self._recovery.here, self._link.source):
            return True
        if (origin.incarnation, origin.shard) != (self._claiming.scope.incarnation, self._shard):
            return False
        position = self._durable.position
        return not isinstance(position, After) or origin.sequence > position.sequence

    def unproven(self) -> Attempts | None:
        """When the former owner may have stored what was not found; None where nothing of the kind is to be feared."""
        floor_ms = self._durable.attempt_floor_ms
        if not self.is_unproven or floor_ms is None:
            return None
        return self._recovery.unproven_owner(floor_ms, self._promised_ms)

    @property
    def has_found(self) -> bool:
        """Whether there is anything that `has_landed` may know."""
        return bool(self._landed)

    def has_landed(self, origin: Origin) -> bool:
        """Whether the event was found in the sink; asked once, when it comes by."""
        if origin not in self._landed:
            return False
        self._landed.discard(origin)
        return True

    def passed(self) -> None:
        """Whatever the former owner attempted has come by."""
        self._landed.clear()
        self._marked_in = None
        self.is_unproven = False


def _stands(released: ClaimMark, session: ClaimSession) -> bool:
    """Whether the store is as the release names it."""
    return (released.incarnation, released.batch, released.settled) == (session.store, session.batch, session.settled)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
