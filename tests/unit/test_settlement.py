"""When a settlement may wait for company, and when somebody waits for it."""

import asyncio
import random
from collections.abc import Callable, Collection

from memory_world import HERE, Clock, Silent

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_stream import MemorySink, MemoryStream
from replicator.core.model import After, Position, Region, SequenceNumber, ShardId, SourceName, TrimHorizon
from replicator.ports import ClaimScope, ClaimSession
from replicator.worker.claiming import Claiming
from replicator.worker.link import Link, LinkSettings
from replicator.worker.settlement import Settlement
from replicator.worker.span import Span


class Asked(MemoryClaims):
    """Remembers which settlements might wait."""

    def __init__(self) -> None:
        super().__init__(Clock().now_ms)
        self.might_wait: list[bool] = []

    async def settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        watermark: SequenceNumber,
        *,
        number: int = 0,
        after: int = 0,
        may_wait: bool = False,
    ) -> None:
        self.might_wait.append(may_wait)
        await super().settle(session, batch, undone, watermark, number=number, after=after)


class Story:
    """Spans without events, each claimed, as far as the claim store sees it."""

    def __init__(self, on_passed: Callable[[Position], None] | None = None) -> None:
        link = Link(
            source=SourceName("orders"),
            peer=Region("eu-west-1"),
            sink=MemorySink(MemoryStream(Clock().now_ms, 1)),
            settings=LinkSettings(),
            clock=Clock(),
            telemetry=Silent(),
            rng=random.Random(1),
        )
        self.store = Asked()
        self.claiming = Claiming(self.store, ClaimScope(link.name, ShardId("s"), HERE), 1, link, "continue")
        self.settlement = Settlement(self.claiming, TrimHorizon(), lambda _: None, on_passed)

    async def done(self, number: int) -> None:
        span = Span(After(SequenceNumber(number)), oldest_ms=0)
        span.batch, _ = await self.claiming.claim([number.to_bytes(20, "big")])
        span.session = self.claiming.session
        self.settlement.add(span)
        self.settlement.opened(span)


async def settled(story: Story, *, is_awaited: bool) -> list[bool]:
    running = asyncio.create_task(story.settlement.run())
    if is_awaited:
        waiting = story.settlement.progress()
        await story.done(1)
        await waiting
    else:
        await story.done(1)
        while story.settlement.open:
            await asyncio.sleep(0)
    running.cancel()
    return story.store.might_wait


async def test_a_settlement_that_nobody_waits_for_may_wait() -> None:
    assert await settled(Story(), is_awaited=False) == [True]


async def test_one_that_somebody_waits_for_may_not() -> None:
    """The channel has no room for more, or is draining."""
    assert await settled(Story(), is_awaited=True) == [False]


async def test_of_a_queue_none_may_wait() -> None:
    """It gives out the next messages of a group when these are deleted."""
    assert await settled(Story(lambda _: None), is_awaited=False) == [False]


async def test_what_is_told_at_the_end_may_not_wait() -> None:
    story = Story()
    await story.done(1)
    assert await story.settlement.settle_partly()
    assert story.store.might_wait == [False]


async def test_progress_between_the_asking_and_the_waiting_is_seen() -> None:
    story = Story()
    running = asyncio.create_task(story.settlement.run())
    progress = story.settlement.progress()
    await story.done(1)
    while story.settlement.open:
        await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        await progress
    running.cancel()
