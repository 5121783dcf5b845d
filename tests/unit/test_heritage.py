"""What a former owner left behind is relied on only as long as the claim store surely knows it."""

import asyncio
import random
import time
from collections.abc import Awaitable

import pytest
from msgspec.structs import replace

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_stream import MemorySink, MemoryStream
from replicator.core.claims import CLAIM_BYTES
from replicator.core.formats import make_format
from replicator.core.model import (
    Checkpoint,
    ClaimMark,
    EventId,
    Origin,
    Region,
    SequenceNumber,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.core.tag import Tag, encode_tag
from replicator.ports import ClaimScope, Entry
from replicator.worker.claiming import Claiming
from replicator.worker.heritage import NOTHING_OPEN, Heritage
from replicator.worker.link import Link, LinkSettings
from replicator.worker.prepare import sender_and_origin
from replicator.worker.recovery import Recovery

HERE = Region("us-east-1")
ORIGIN = Origin(HERE, SourceName("orders"), "1", ShardId("shardId-000000000000"), SequenceNumber(7))
CLAIM = b"x" * CLAIM_BYTES
FLOOR_MS = time.time_ns() // 1_000_000 - 60_000


class NoTelemetry:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Shard:
    """One (link, shard) under a lease: the former owner published the event of ``origin`` and marked it done."""

    def __init__(self, window_s: float = 3600.0, origin: Origin = ORIGIN) -> None:
        peer = MemoryStream(Clock().now_ms)
        path = (HERE,) if origin.region == HERE else (origin.region, HERE)
        tag = encode_tag(Tag(1, origin, EventId("e"), path, 1))
        peer.store(Entry(b'{"_replicator":' + tag + b',"id":"e"}', "k"))
        self.link = Link(
            source=SourceName("orders"),
            peer=Region("eu-west-1"),
            sink=MemorySink(peer),
            settings=LinkSettings(in_doubt_wait_s=0.0),
            clock=Clock(),
            telemetry=NoTelemetry(),
            rng=random.Random(1),
        )
        self.store = MemoryClaims(Clock().now_ms, window_s)
        self.scope = ClaimScope(self.link.name, ORIGIN.shard, ORIGIN.incarnation)
        self.claiming = Claiming(self.store, self.scope, 2, self.link, "continue")
        self.recovery = Recovery(self.link, HERE, sender_and_origin(make_format("json")))

    async def heritage(self) -> Heritage:
        """As the next owner finds it."""
        await self.link._refresh_clock()
        former = await self.store.attach(self.scope, 1)
        await self.store.claim(former, 1, CLAIM)
        await self.store.settle(former, 1, (), SequenceNumber(0))
        durable = Checkpoint(TrimHorizon(), FLOOR_MS, ClaimMark(former.store, 1))
        heritage = Heritage(self.link, durable, self.claiming, self.recovery, ORIGIN.shard)
        await heritage.take_over(await self.claiming.attach())
        return heritage


async def to_its_end(reading: Awaitable[None]) -> None:
    await reading


async def test_marks_that_the_store_still_has_save_the_reading() -> None:
    shard = Shard()
    heritage = await shard.heritage()
    assert (await shard.claiming.claim([CLAIM]))[1] == b"d"
    assert not heritage.must_look_up(1)
    assert heritage.floor_ms == FLOOR_MS
    heritage.passed()
    assert heritage.floor_ms is None
    assert shard.link.counts["takeovers_in_doubt_total"] == 0


async def test_marks_that_are_lost_after_the_takeover_are_looked_up_before_anything_is_sent() -> None:
    shard = Shard()
    heritage = await shard.heritage()
    shard.store.flush()
    assert (await shard.claiming.claim([CLAIM]))[1] == b"n"
    assert heritage.must_look_up(1)
    assert await heritage.look_up(to_its_end)
    assert not heritage.must_look_up(1)
    assert heritage.floor_ms == FLOOR_MS
    assert heritage.has_landed(ORIGIN)
    assert not heritage.has_landed(ORIGIN)


async def test_marks_that_the_store_is_about_to_forget_are_looked_up() -> None:
    shard = Shard(window_s=1.0)
    heritage = await shard.heritage()
    assert heritage.must_look_up(1)


async def test_a_batch_without_an_answer_of_the_store_is_looked_up() -> None:
    heritage = await Shard().heritage()
    assert heritage.must_look_up(None)


async def test_a_reading_that_was_broken_off_leaves_the_heritage_as_it_was() -> None:
    """A drain in the middle of it must not look like a shard with nothing in doubt."""
    shard = Shard(window_s=1.0)
    heritage = await shard.heritage()

    async def broken_off(reading: Awaitable[None]) -> None:
        asyncio.ensure_future(reading).cancel()

    assert not await heritage.look_up(broken_off)
    assert heritage.must_look_up(1)
    assert heritage.floor_ms == FLOOR_MS


@pytest.mark.parametrize(
    ("origin", "is_found"),
    [
        (replace(ORIGIN, region=Region("eu-west-1")), True),
        (replace(ORIGIN, source=SourceName("orders-table")), True),
        (replace(ORIGIN, shard=ShardId("shardId-000000000001")), False),
        (replace(ORIGIN, incarnation="2"), False),
    ],
    ids=["relayed", "of a table", "another shard", "another incarnation"],
)
async def test_looked_for_is_what_may_come_by_here(origin: Origin, is_found: bool) -> None:
    shard = Shard(origin=origin)
    await shard.heritage()
    heritage = Heritage(shard.link, Checkpoint(TrimHorizon(), FLOOR_MS), shard.claiming, shard.recovery, ORIGIN.shard)
    await heritage.take_over(shard.claiming.session)
    assert heritage.has_landed(origin) == is_found


@pytest.mark.parametrize(
    "released", [None, ClaimMark("memory-1", 9), ClaimMark("another", 1), ClaimMark("memory-1", 1, 1)]
)
async def test_without_a_mark_that_fits_the_store_everything_is_looked_up(released: ClaimMark | None) -> None:
    shard = Shard()
    await shard.heritage()
    heritage = Heritage(
        shard.link, Checkpoint(TrimHorizon(), FLOOR_MS, released), shard.claiming, shard.recovery, ORIGIN.shard
    )
    await heritage.take_over(shard.claiming.session)
    assert heritage.has_landed(ORIGIN)


@pytest.mark.parametrize(
    "durable", [Checkpoint(TrimHorizon()), Checkpoint(TrimHorizon(), FLOOR_MS, NOTHING_OPEN)], ids=["new", "nothing"]
)
async def test_where_nothing_was_left_nothing_is_looked_up(durable: Checkpoint) -> None:
    shard = Shard()
    heritage = Heritage(shard.link, durable, shard.claiming, shard.recovery, ORIGIN.shard)
    await heritage.take_over(None)
    assert not heritage.has_landed(ORIGIN)
    assert heritage.floor_ms is None
