"""A worker between KPL aggregates at its source and packed records at its sink, on memory adapters and virtual time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

import pytest
from virtual_time import LoopClock, virtually

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream, Operation
from replicator.core.formats import make_format
from replicator.core.kpl import UserRecord, events, pack, unpack
from replicator.core.leasing import LeaseSettings
from replicator.core.model import (
    After,
    EventId,
    Origin,
    Position,
    Region,
    SequenceNumber,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.core.tag import Tag, decode_tag, encode_tag
from replicator.core.topology import Topologies, compile_generation, hub
from replicator.errors import InDoubt, Refused
from replicator.ports import Entry, SinkLimits
from replicator.worker.link import Link, LinkSettings
from replicator.worker.service import Service
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

REGIONS = EAST, WEST, SOUTH = Region("us-east-1"), Region("eu-west-1"), Region("ap-southeast-2")
"""The first one relays between the others; its worker, and its link to the second, are what is tested."""
ORDERS = SourceName("orders")
SHARD = ShardId("shardId-000000000000")
LIMITS = SinkLimits(500, 5 * 1024 * 1024, 1024 * 1024)
ROUND_TRIP_S = 0.05


class Silent:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...
    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


def event(number: int, key: str) -> bytes:
    return json.dumps({"id": f"e{number}", "n": number, "key": key}).encode()


def replica(number: int, home: Region) -> bytes:
    """An event as ``home`` sends it."""
    origin = Origin(home, ORDERS, "1", SHARD, SequenceNumber(number))
    tag = encode_tag(Tag(1, origin, EventId(f"e{number}"), (home,), 1))
    return b'{"_replicator":' + tag + b"," + event(number, "k")[1:]


def tag_of(data: bytes) -> Tag:
    return decode_tag(json.dumps(json.loads(data)["_replicator"]).encode())


def aggregate(*users: tuple[bytes, str]) -> bytes:
    return pack(UserRecord(data, key) for data, key in users)


def stored(record_data: bytes) -> list[bytes]:
    return list(events(record_data))


@lru_cache(10_000)
def numbers(record_data: bytes) -> list[int]:
    return [json.loads(data)["n"] for data in stored(record_data)]


class WatchedSink(MemorySink):
    """Counts requests that were refused as such."""

    refused = 0

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:
        try:
            return await super().put(entries, signed_ms=signed_ms)
        except Refused:
            self.refused += 1
            raise


class World:
    """One region's stream, its peer's, and the stores, which outlive any worker."""

    def __init__(self, *, shards: int = 1, limits: SinkLimits = LIMITS, **link: object) -> None:
        clock = LoopClock()
        self.clock = clock
        self.home = MemoryStream(clock.now_ms)
        self.peer = MemoryStream(clock.now_ms, shards)
        self.peer.before = self._travel
        self.sink = WatchedSink(self.peer, limits)
        self.leases = MemoryLeases()
        self.claims = MemoryClaims(clock.now_ms)
        self.quarantine = MemoryQuarantine()
        self.links: list[Link] = []
        self._link_settings = LinkSettings(**{"in_doubt_wait_s": 2.0, **link})  # type: ignore[arg-type] - the tests' words
        self._workers = 0

    async def _travel(self, operation: Operation) -> None:
        await asyncio.sleep(ROUND_TRIP_S)

    def service(self) -> Service:
        self._workers += 1
        rng = random.Random(self._workers)
        topologies = Topologies(compile_generation(1, REGIONS, hub(REGIONS, EAST)))
        link = Link(
            source=ORDERS,
            peer=WEST,
            sink=self.sink,
            settings=self._link_settings,
            clock=self.clock,
            telemetry=Silent(),
            rng=rng,
        )
        self.links.append(link)
        setup = SourceSetup(
            ORDERS, MemorySource(self.home), make_format("json"), (link,), _beginning, LogSettings(10**6)
        )
        return Service(
            Identity(EAST, f"w{self._workers}", frozenset(REGIONS), topologies, None),
            [setup],
            Stores(self.leases, self.claims, self.quarantine),
            ServiceSettings(LeaseSettings(6.0, 2.0), RunnerSettings(5.0, 1.0), "continue"),
            clock=self.clock,
            telemetry=Silent(),
            rng=rng,
        )

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Service]:
        """Runs inside the block; leaving it is the worker's death, with no word to anybody."""
        service = self.service()
        task = asyncio.ensure_future(service.run())
        try:
            yield service
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def put(self, *users: tuple[bytes, str]) -> None:
        """One user record goes plainly, several as an aggregate."""
        data = aggregate(*users) if len(users) > 1 else users[0][0]
        self.home.store(Entry(data, users[0][1]))

    def records(self) -> list[bytes]:
        return [record.data for shard in self.peer.list_shards() for record in self.peer.records(shard.id)]

    def arrived(self) -> list[int]:
        return [number for record in self.records() for number in numbers(record)]

    def count(self, name: str) -> int:
        return sum(v for link in self.links for key, v in link.counts.items() if key.split("/")[0] == name)

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(600):
            while not is_true():
                await asyncio.sleep(0.07)

    async def position(self) -> Position:
        [row] = await self.leases.rows(ORDERS)
        return row.checkpoints[self.links[-1].name].position


def _beginning(_: int) -> Position:
    return TrimHorizon()


# --- the source ----------------------------------------------------------------------------------------------------


def test_each_user_record_is_tagged_routed_or_quarantined_by_itself() -> None:
    async def story() -> None:
        world = World()
        world.put((event(1, "a"), "a"), (replica(7, WEST), "b"), (b"no event", "c"), (event(2, "b"), "b"))
        [record] = world.home.records(SHARD)
        async with world.worker():
            await world.until(lambda: len(world.records()) == 2 and bool(world.quarantine.events))
        tags = {json.loads(data)["n"]: tag_of(data) for data in world.records()}
        assert {n: (tag.origin.sequence, tag.origin.sub_sequence) for n, tag in tags.items()} == {
            1: (record.sequence, 0),
            2: (record.sequence, 3),
        }
        assert {r.partition_key for r in world.peer.records(SHARD)} == {"a", "b"}
        [poison] = world.quarantine.events.values()
        assert (poison.data, poison.partition_key, poison.origin.sub_sequence) == (b"no event", "c", 2)
        assert world.links[0].counts["events_dropped_total/no_route"] == 1

    virtually(story)


@pytest.mark.parametrize("damage", [b"\x00", b""], ids=["wrong-checksum", "nested"])
def test_what_looks_like_an_aggregate_and_is_none_is_kept_with_its_bytes_and_a_reason(damage: bytes) -> None:
    inner = aggregate((event(1, "a"), "a"), (event(2, "a"), "a"))

    async def story() -> None:
        world = World()
        if damage:
            world.home.store(Entry(inner + damage, "a"))
        else:
            world.put((inner, "a"), (event(3, "b"), "b"))
        async with world.worker():
            await world.until(lambda: bool(world.quarantine.events))
        [poison] = world.quarantine.events.values()
        assert (poison.reason, poison.data) == ("bad_aggregate", inner + damage)

    virtually(story)


def test_the_checkpoint_stands_behind_whole_records_only_and_a_drain_loses_nothing() -> None:
    async def story() -> None:
        world = World(span_records_max=4, open_spans_max=2, in_flight_max=1)
        for first in range(0, 60, 6):
            world.put(*[(event(n, f"k{n % 4}"), f"k{n % 4}") for n in range(first, first + 6)])
        ends = [After(record.sequence) for record in world.home.records(SHARD)]
        while len(world.arrived()) < 60:
            service = world.service()
            running = asyncio.ensure_future(service.run())
            before = len(world.arrived())
            await world.until(lambda before=before: len(world.arrived()) > before)
            await service.drain()
            await running
            assert await world.position() in [TrimHorizon(), *ends]
        assert sorted(world.arrived()) == list(range(60))

    virtually(story)


def test_a_relay_forwards_what_another_region_packed_event_by_event() -> None:
    async def story() -> None:
        world = World()
        world.put((replica(1, SOUTH), "k"), (replica(2, SOUTH), "k"))
        async with world.worker():
            await world.until(lambda: len(world.records()) == 2)
        tags = [tag_of(data) for data in world.records()]
        assert [(tag.origin.region, tag.origin.sequence, tag.path) for tag in tags] == [
            (SOUTH, 1, (SOUTH, EAST)),
            (SOUTH, 2, (SOUTH, EAST)),
        ]

    virtually(story)


# --- the sink ------------------------------------------------------------------------------------------------------


def test_events_that_wait_in_a_lane_travel_in_one_record_and_a_single_one_plainly() -> None:
    async def story() -> None:
        world = World(aggregate="kpl")
        for number in range(100):
            world.put((event(number, "hot"), "hot"))
        world.put((event(100, "cold"), "cold"))
        async with world.worker():
            await world.until(lambda: len(world.arrived()) == 101)
            assert [n for n in world.arrived() if n < 100] == list(range(100))
            packed = [record for record in world.records() if len(stored(record)) > 1]
            assert len(world.records()) <= 4
            assert world.count("events_packed_total") == sum(len(stored(record)) for record in packed)
            assert {user.partition_key for record in packed for user in unpack(record)} == {"hot"}
            [alone] = [record for record in world.records() if b"cold" in record]
            assert alone.startswith(b"{")

    virtually(story)


def test_without_aggregation_every_event_is_a_record() -> None:
    async def story() -> None:
        world = World()
        world.put(*[(event(number, "hot"), "hot") for number in range(20)])
        async with world.worker():
            await world.until(lambda: len(world.arrived()) == 20)
        assert len(world.records()) == 20

    virtually(story)


@pytest.mark.parametrize("limits", [SinkLimits(3, 4000, 1500), SinkLimits(500, 1500, 1500), SinkLimits(1, 700, 700)])
def test_packed_records_keep_to_the_sinks_bounds(limits: SinkLimits) -> None:
    """The sink refuses what is over them, and nothing is refused."""

    async def story() -> None:
        world = World(aggregate="kpl", limits=limits)
        for number in range(60):
            world.put((event(number, f"k{number % 5}"), f"k{number % 5}"))
        async with world.worker():
            await world.until(lambda: len(world.arrived()) == 60)
        assert world.sink.refused == 0
        assert in_order(world.arrived(), 5)
        assert not world.quarantine.events

    virtually(story)


def test_a_packed_record_that_the_peer_refuses_is_halved_until_the_culprit_is_alone() -> None:
    bad = {13, 14, 40}

    async def story() -> None:
        world = World(aggregate="kpl")

        def refuse(entries: Sequence[Entry]) -> None:
            if any(json.loads(data)["n"] in bad for entry in entries for data in stored(entry.data)):
                raise Refused("the peer takes no such event")

        world.peer.fault = refuse
        for number in range(60):
            world.put((event(number, "hot"), "hot"))
        async with world.worker():
            await world.until(lambda: len(world.arrived()) == 57 and len(world.quarantine.events) == 3)
        assert world.arrived() == [n for n in range(60) if n not in bad]
        assert {json.loads(poison.data)["n"] for poison in world.quarantine.events.values()} == bad

    virtually(story)


def test_where_keys_are_held_what_was_packed_behind_the_culprit_follows_it_in_order() -> None:
    async def story() -> None:
        world = World(aggregate="kpl", on_poison="hold_key")

        def refuse(entries: Sequence[Entry]) -> None:
            if any(13 in numbers(entry.data) for entry in entries):
                raise Refused("the peer takes no such event")

        world.peer.fault = refuse
        for number in range(60):
            world.put((event(number, "hot"), "hot"))
        async with world.worker():
            await world.until(lambda: len(world.quarantine.events) == 47)
        assert world.arrived() == list(range(13))
        put_away = list(world.quarantine.events.values())
        assert [json.loads(poison.data)["n"] for poison in put_away] == list(range(13, 60))
        assert [poison.reason for poison in put_away] == ["refused_by_peer"] + ["key_held"] * 46

    virtually(story)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_packed_record_whose_answer_was_lost_is_looked_up_event_by_event(is_stored: bool) -> None:
    async def story() -> None:
        world = World(aggregate="kpl", in_flight_max=1)

        def lose(entries: Sequence[Entry]) -> None:
            if any(len(stored(entry.data)) > 1 for entry in entries):
                world.peer.fault = world.peer.after_put = None
                raise InDoubt("the answer was lost", sent_ms=world.clock.now_ms())

        if is_stored:
            world.peer.after_put = lose
        else:
            world.peer.fault = lose
        for number in range(30):
            world.put((event(number, "hot"), "hot"))
        async with world.worker():
            await world.until(lambda: world.count("in_doubt_total") > 1 and len(world.arrived()) >= 30)
            await asyncio.sleep(30)
        assert world.arrived() == list(range(30))

    virtually(story)


@pytest.mark.parametrize("aggregates", ["none", "kpl"])
@pytest.mark.parametrize("seed", range(6))
def test_workers_that_die_anywhere_lose_repeat_and_reorder_nothing(seed: int, aggregates: str) -> None:
    """Whatever the aggregates at the source, spans, faults of the peer and losses of the claim store."""

    async def story() -> None:
        rng = random.Random(seed)
        world = World(
            shards=2, aggregate=aggregates, span_records_max=rng.choice([1, 3, 50]), open_spans_max=rng.choice([1, 3])
        )

        def fail_singly(entries: Sequence[Entry]) -> list[str | None]:
            return [rng.choice([None, None, "InternalFailure"]) for _ in entries]

        def lose_answer(entries: Sequence[Entry]) -> None:
            if rng.random() < 0.1:
                raise InDoubt("the answer was lost", sent_ms=world.clock.now_ms())

        world.peer.fault, world.peer.after_put = fail_singly, lose_answer
        number = 0
        for _ in range(6):
            for size in rng.choices([1, 1, 2, 9, 40], k=12):
                world.put(*[(event(n, f"k{n % 5}"), f"k{n % 5}") for n in range(number, number + size)])
                number += size
            dies_at = len(world.records()) + rng.randrange(1, 25)
            async with world.worker():
                await world.until(
                    lambda at=dies_at, all_=number: len(world.records()) >= at or len(world.arrived()) == all_
                )
            if rng.random() < 0.5:
                world.claims.flush()
        async with world.worker():
            await world.until(lambda: set(world.arrived()) == set(range(number)))
            await asyncio.sleep(30)
        assert sorted(world.arrived()) == list(range(number))
        assert in_order(world.arrived(), 5)
        assert not world.quarantine.events

    virtually(story)


def in_order(numbers: Sequence[int], keys: int) -> bool:
    """Key and number go together: every key's numbers grow."""
    lanes = [[n for n in numbers if n % keys == key] for key in range(keys)]
    return all(lane == sorted(lane) for lane in lanes)
