"""Marks in the claim store end with its window, however late somebody relies on them."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from test_heritage import FLOOR_MS, ORIGIN, Shard

from replicator.adapters.memory_claims import MemoryClaims
from replicator.core.model import After, Checkpoint, ClaimMark, SequenceNumber, TrimHorizon
from replicator.errors import ClaimsLost
from replicator.worker.channel import Channel
from replicator.worker.claiming import Claiming
from replicator.worker.heritage import Heritage
from replicator.worker.settlement import Settlement
from replicator.worker.span import Item, Span

DONE_OF_FIRST, STUCK, DONE_BEHIND = (bytes([number]) * 20 for number in (1, 2, 3))
WINDOW_S = 3600.0


class Owner:
    """Who has two spans open: of the first one event is stuck in the peer, the second is done and marked."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.now_ms = 1_000_000_000
        self.store = MemoryClaims(lambda: self.now_ms, WINDOW_S)
        self.claiming = Claiming(self.store, self.shard.scope, 1, self.shard.link, "continue")
        self.settlement = Settlement(self.claiming, TrimHorizon(), lambda _: None)
        self.spans: list[Span] = []

    async def work(self) -> None:
        await self.claiming.attach()
        running = asyncio.create_task(self.settlement.run())
        first = await self._opened(10, [DONE_OF_FIRST, STUCK])
        behind = await self._opened(20, [DONE_BEHIND])
        self.settlement.close([first.items[0], *behind.items])
        while not behind.is_marked:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        self.spans = [first, behind]

    async def _opened(self, number: int, claims: Sequence[bytes]) -> Span:
        span, nothing = Span(After(SequenceNumber(number)), oldest_ms=0), _nothing()
        span.items = [Item(nothing, span, nothing, 1, index) for index in range(len(claims))]
        span.pending += len(claims)
        self.settlement.add(span)
        self.settlement.opened(span)
        span.batch, _ = await self.claiming.claim(claims)
        span.session = self.claiming.session
        return span

    def stand_still(self, stuck_s: float) -> None:
        self.now_ms += round(stuck_s * 1000)
        for span in self.spans:
            span.marked_s -= stuck_s  # As long ago by the clock of the loop.

    async def release(self) -> Checkpoint:
        assert await self.settlement.settle_partly()
        channel: Any = SimpleNamespace(
            checkpoint=lambda: Checkpoint(TrimHorizon(), FLOOR_MS),
            _may_attempt=True,
            _heritage=SimpleNamespace(floor_ms=None),
            _settlement=self.settlement,
            _claiming=self.claiming,
        )
        return Channel._final(channel, is_quiet=True)


def _nothing() -> Any:
    return None


@pytest.mark.parametrize(("stuck_s", "is_known"), [(60.0, True), (WINDOW_S - 5, True), (2 * WINDOW_S, False)])
async def test_marks_older_than_the_window_are_looked_up_after_a_graceful_release(
    stuck_s: float, is_known: bool
) -> None:
    """Settling the rest at the release renews the store's last settlement, and none of the older marks."""
    owner = Owner()
    await owner.shard.link._refresh_clock()
    await owner.work()
    owner.stand_still(stuck_s)
    durable = await owner.release()
    heir = Claiming(owner.store, owner.shard.scope, 2, owner.shard.link, "continue")
    heritage = Heritage(owner.shard.link, durable, heir, owner.shard.recovery, ORIGIN.shard)
    await heritage.take_over(await heir.attach())
    batch, verdicts = await heir.claim([DONE_BEHIND])
    assert verdicts == (b"d" if is_known else b"n")
    assert heritage.must_look_up(batch) == (stuck_s > WINDOW_S - 10)


async def test_marks_of_a_former_owner_are_not_handed_on() -> None:
    owner = Owner()
    await owner.work()
    owner.spans[1].has_former_marks = True
    assert (await owner.release()).released is None


async def test_an_owner_hands_on_how_old_its_oldest_mark_is() -> None:
    owner = Owner()
    await owner.work()
    owner.stand_still(100.0)
    released = (await owner.release()).released
    assert released is not None
    assert released.age_ms == pytest.approx(100_000, abs=2_000)
    assert released == ClaimMark("memory-1", 2, 2, released.age_ms)


async def test_a_late_loss_of_a_former_session_does_not_end_the_one_there_is() -> None:
    shard, gate = Shard(), asyncio.Event()

    class Slow(MemoryClaims):
        async def settle(self, *args: Any, **options: Any) -> None:
            await gate.wait()
            await super().settle(*args, **options)

    claiming = Claiming(Slow(lambda: 1), shard.scope, 1, shard.link, "continue")
    former = await claiming.attach()
    batch, _ = await claiming.claim([STUCK])
    late = asyncio.create_task(claiming.settle(former, batch, (), SequenceNumber(0), may_wait=False))
    await asyncio.sleep(0)
    assert former is not None
    claiming._lost(former, ClaimsLost("the batch counter went another way"))
    await claiming.claim([DONE_BEHIND])
    session = claiming.session
    gate.set()
    assert not await late
    assert claiming.session is session is not None
