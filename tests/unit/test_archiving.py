"""A hub and its lake in memory: everything there, in order, whatever topology and failures; and fuller objects."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from memory_world import HERE, PEERS, SOURCE, Clock, Silent, World

from replicator.adapters.memory_lake import MemoryLake
from replicator.adapters.memory_stream import MemorySink, MemorySource
from replicator.core.formats import make_format
from replicator.core.lake import LAKE, Archived, events_of
from replicator.core.model import Region, TrimHorizon
from replicator.errors import TransientError
from replicator.ports import Entry, Sink, SinkLimits
from replicator.worker.link import Link, LinkSettings
from replicator.worker.setup import SourceSetup
from replicator.worker.shard_log import LogSettings

PEER = PEERS[0]
LIMITS = SinkLimits(records_max=500, request_bytes_max=1024 * 1024, record_bytes_max=1024 * 1024)
PLAIN = LinkSettings(backoff_base_s=0.01, backoff_max_s=0.05, in_doubt_wait_s=0.0)
FOREVER_S = 3600.0


def lake_of(linger_s: float) -> LinkSettings:
    return LinkSettings(
        backoff_base_s=0.01,
        backoff_max_s=0.05,
        ordering="shard",
        in_flight_max=1,
        linger_s=linger_s,
        is_lake=True,
        open_spans_max=1000,
    )


class LakeWorld:
    """One peer and the lake. ``memory.service`` is not the one that runs."""

    def __init__(self, *, linger_s: float = 0.0, shards: int = 1, limits: SinkLimits = LIMITS) -> None:
        self.memory = World(regions=(HERE, PEER), shards=shards)
        self.lake = MemoryLake(SOURCE, limits)
        links = (
            self._link(PEER, MemorySink(self.memory.peers[PEER]), PLAIN),
            self._link(LAKE, self.lake, lake_of(linger_s)),
        )
        log = LogSettings(64 * 1024 * 1024, reads_per_s=10_000, idle_read_s=0.001, retry_s=0.01)
        source = MemorySource(self.memory.source)
        setup = SourceSetup(SOURCE, source, make_format("json"), links, lambda _: TrimHorizon(), log)
        self.memory.service = self.memory.service_of(setup, self.memory.quarantine)

    def _link(self, peer: Region, sink: Sink, settings: LinkSettings) -> Link:
        return Link(
            source=SOURCE,
            peer=peer,
            sink=sink,
            settings=settings,
            clock=Clock(),
            telemetry=Silent(),
            rng=random.Random(1),
        )

    def store(self, *numbers: int) -> None:
        for number in numbers:
            self.memory.source.store(Entry(b'{"id":"%d"}' % number, f"k{number % 7}"))

    def archived(self) -> list[Archived]:
        """Object by object, as they were stored."""
        return [event for body in self.lake.objects.values() for event in events_of(body)]

    def hub(self) -> list[tuple[str, int, str, bytes]]:
        shards = self.memory.source.list_shards()
        return sorted(
            (shard.id, record.sequence, record.partition_key, record.data)
            for shard in shards
            for record in self.memory.source.records(shard.id)
        )

    def in_lake(self) -> list[tuple[str, int, str, bytes]]:
        return sorted((e.shard, e.sequence, e.partition_key, e.data) for e in self.archived())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Drained at the end."""
        task = asyncio.create_task(self.memory.service.run())
        try:
            yield
            await self.memory.service.drain()
            await task
        finally:
            task.cancel()
            await asyncio.wait((task,))


def is_in_order(events: Sequence[Archived]) -> bool:
    return [e.sequence for e in events] == sorted(e.sequence for e in events)


async def test_the_lake_holds_what_the_hub_holds_replicas_and_repetitions_too() -> None:
    world = LakeWorld(shards=2)
    world.store(*range(50), 7, 7)
    replica = world.memory.replica_from(PEER)
    for _ in range(3):  # of those that came the same way before no more than their way is known
        world.memory.source.store(Entry(replica, "k"))
    world.memory.source.store(Entry(b"\xff no event", "k"))
    async with world.running():
        await world.memory.until(lambda: len(world.archived()) == 55 and world.memory.arrived(PEER) == 50)
        await world.memory.until(lambda: len(world.memory.quarantine.events) == 2)
    assert world.in_lake() == [row for row in world.hub() if row[3] != b"\xff no event"]
    by_data = {event.data: event for event in world.archived()}
    own, foreign = by_data[b'{"id":"3"}'], by_data[replica]
    assert (own.event_id, own.path, own.origin.region, own.origin.sequence) == ("3", (), HERE, own.sequence)
    assert (foreign.event_id, foreign.path, foreign.origin.region) == ("r", (PEER,), PEER)
    info = await MemorySource(world.memory.source).describe()
    assert {event.incarnation for event in world.archived()} == {info.incarnation}


async def test_after_failures_the_objects_are_still_in_the_order_of_the_hub() -> None:
    world = LakeWorld(limits=SinkLimits(7, 64 * 1024, 64 * 1024))
    world.lake.failures = [TransientError("away") for _ in range(5)]
    world.store(*range(100))
    async with world.running():
        await world.memory.until(lambda: len(world.archived()) == 100)
    assert world.in_lake() == world.hub()
    assert is_in_order(world.archived())


async def test_a_lake_that_is_away_delays_no_peer_and_its_own_watermark_waits() -> None:
    world = LakeWorld()
    world.lake.failures = [TransientError("away") for _ in range(10_000)]
    world.store(*range(100))
    async with world.running():
        await world.memory.until(lambda: world.memory.arrived(PEER) == 100)
        await world.memory.until(lambda: all(str(s["position"]).startswith("after") for s in shards(world, PEER)))
        assert [str(s["position"]).split(":")[0] for s in shards(world, LAKE)] == ["at_timestamp"]
        world.lake.failures.clear()
        await world.memory.until(lambda: len(world.archived()) == 100)


def shards(world: LakeWorld, peer: Region) -> list[dict[str, object]]:
    return world.memory.shards_of(peer)


async def test_events_wait_for_a_fuller_object_and_draining_ends_the_wait() -> None:
    world = LakeWorld(linger_s=FOREVER_S)
    async with world.running():
        for number in range(20):
            world.store(number)
            await world.memory.until(lambda number=number: world.memory.arrived(PEER) == number + 1)
        await world.memory.until(lambda: [s["waiting"] for s in shards(world, LAKE)] == [20])
        assert not world.lake.objects
    assert len(world.lake.objects) == 1
    assert world.in_lake() == world.hub()


async def test_the_end_of_a_shard_ends_the_wait() -> None:
    world = LakeWorld(linger_s=FOREVER_S)
    world.store(*range(20))
    [shard] = world.memory.source.list_shards()
    world.memory.source.split(shard.id)
    async with world.running():
        await world.memory.until(lambda: len(world.archived()) == 20)


async def test_what_fills_an_object_does_not_wait() -> None:
    world = LakeWorld(linger_s=FOREVER_S)
    world.store(*range(LIMITS.records_max))
    async with world.running():
        await world.memory.until(lambda: len(world.archived()) == LIMITS.records_max)
    assert len(world.lake.objects) == 1


async def test_when_no_more_may_be_held_nothing_waits_for_more() -> None:
    world = LakeWorld(linger_s=FOREVER_S, limits=SinkLimits(10_000, 1024 * 1024, 1024 * 1024))
    for number in range(100):
        world.memory.source.store(Entry(b'{"id":"%d","x":"%s"}' % (number, b"x" * 100_000), "k"))
    async with world.running():
        await world.memory.until(lambda: len(world.archived()) > 50)
    assert world.in_lake() == world.hub()[: len(world.in_lake())], "without a hole"
    assert is_in_order(world.archived())
