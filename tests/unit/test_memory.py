"""The worker's memory: a budget that holds however long a peer is down, and that nobody can take from another."""

import asyncio
import gc
import json
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream, Operation
from replicator.core.formats import make_format
from replicator.core.leasing import LeaseSettings
from replicator.core.memory import COPIES, records_within, run_end, share_bytes
from replicator.core.model import Region, SourceName, TrimHorizon
from replicator.core.topology import Topologies, compile_generation, mesh
from replicator.errors import TransientError
from replicator.ports import Entry
from replicator.worker.link import Link, LinkSettings
from replicator.worker.service import Identity, Service, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings
from replicator.worker.span import Item

HERE, DOWN, UP = Region("us-east-1"), Region("eu-west-1"), (Region("ap-southeast-2"), Region("sa-east-1"))
REGIONS = [HERE, DOWN, *UP]
EVENTS, KEYS, SHARDS = 200_000, 500, 2
BUDGET_BYTES = 2 * 1024 * 1024
EVENT_BYTES = 150
"""The least that an event of this test has."""
DEADLINE_S = 120.0


@given(st.integers(1, 10**9), st.integers(1, 500), st.integers(1, 500))
def test_all_shares_together_are_within_the_budget(budget: int, windows: int, queues: int) -> None:
    held = windows * share_bytes(budget, windows) + queues * share_bytes(budget, queues)
    assert held * COPIES <= budget


@given(st.lists(st.integers(1, 2_000), max_size=60), st.integers(1, 20), st.integers(1, 5_000))
def test_runs_are_whole_in_order_and_within_both_bounds_but_for_a_single_record(
    sizes: list[int], records_max: int, bytes_max: int
) -> None:
    start = 0
    while start < len(sizes):
        end = run_end(sizes, start, records_max, bytes_max)
        assert start < end <= start + records_max
        assert sum(sizes[start:end]) <= bytes_max or end == start + 1
        start = end
    assert start == len(sizes)


@given(st.integers(1, 10**8), st.integers(0, 10**7), st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_page_is_asked_for_that_fits_or_a_single_record(share: int, seen: int, count: int, records_max: int) -> None:
    asked = records_within(share, seen, count, records_max)
    assert 1 <= asked <= records_max
    if count and asked > 1:
        assert asked * seen / count <= share * 1.001


class Silent:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class World:
    """One worker of one region on streams in memory, with three peers."""

    def __init__(self) -> None:
        now_ms = Clock().now_ms
        self.source = MemoryStream(now_ms, SHARDS)
        self.peers = {peer: MemoryStream(now_ms, 1) for peer in REGIONS[1:]}
        self.written = 0
        rng = random.Random(1)
        settings = LinkSettings(backoff_base_s=0.01, backoff_max_s=0.1, in_doubt_wait_s=0.0)
        links = tuple(
            Link(
                source=SourceName("orders"),
                peer=peer,
                sink=MemorySink(stream),
                settings=settings,
                telemetry=Silent(),
                rng=rng,
            )
            for peer, stream in self.peers.items()
        )
        log = LogSettings(BUDGET_BYTES, reads_per_s=10_000, idle_read_s=0.001, retry_s=0.01)
        setup = SourceSetup(
            SourceName("orders"), MemorySource(self.source), make_format("json"), links, lambda _: TrimHorizon(), log
        )
        routes = Topologies(compile_generation(1, REGIONS, mesh(REGIONS)), [])
        self.service = Service(
            Identity(HERE, "w", frozenset(REGIONS), 1, routes, None),
            [setup],
            Stores(MemoryLeases(), MemoryClaims(now_ms), MemoryQuarantine()),
            ServiceSettings(LeaseSettings(10.0, 1.0), RunnerSettings(1.0, 0.1), "continue", BUDGET_BYTES),
            clock=Clock(),
            telemetry=Silent(),
            rng=rng,
        )

    def write(self, count: int) -> None:
        for number in range(self.written, self.written + count):
            key = f"k{number % KEYS}"
            self.source.store(Entry(json.dumps({"id": str(number), "pad": "x" * 100}).encode(), key))
        self.written += count

    def arrived(self, peer: Region) -> int:
        stream = self.peers[peer]
        return sum(len(stream.records(shard.id)) for shard in stream.list_shards())

    def numbers(self, peer: Region) -> list[tuple[str, int]]:
        stream = self.peers[peer]
        records = [record for shard in stream.list_shards() for record in stream.records(shard.id)]
        return [(record.partition_key, int(json.loads(record.data)["id"])) for record in records]

    def attached(self, peer: Region) -> list[object]:
        links: dict[str, dict[str, dict[str, dict[str, object]]]] = self.service.status()["links"]  # type: ignore[assignment] - JSON
        return [shard["attached"] for shard in links[f"orders:{peer}"]["shards"].values()]


async def until(is_so: Callable[[], bool], look: Callable[[], None]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            look()
            await asyncio.sleep(0.005)


async def is_away(operation: Operation) -> None:
    raise TransientError("the peer is down")


@pytest.mark.slow
async def test_a_peer_that_is_down_for_200_000_events_costs_no_memory_and_delays_nobody() -> None:
    world = World()
    world.peers[DOWN].before = is_away
    peak = 0

    def look() -> None:
        nonlocal peak
        peak = max(peak, world.service.memory_used())

    running = asyncio.create_task(world.service.run())
    while world.written < EVENTS:
        world.write(2_000)
        await until(lambda: all(world.arrived(peer) == world.written for peer in UP), look)
    assert world.arrived(DOWN) == 0
    assert 0 < peak <= BUDGET_BYTES
    items = sum(isinstance(thing, Item) for thing in gc.get_objects())
    assert items <= BUDGET_BYTES / 2 / COPIES / EVENT_BYTES
    assert world.attached(DOWN) == [False] * SHARDS

    world.peers[DOWN].before = None
    await until(lambda: world.arrived(DOWN) == world.written, look)
    await until(lambda: world.attached(DOWN) == [True] * SHARDS, look)
    assert peak <= BUDGET_BYTES
    for peer in (DOWN, *UP):
        arrived = world.numbers(peer)
        assert sorted(number for _, number in arrived) == list(range(EVENTS))
        last: dict[str, int] = {}
        for key, number in arrived:
            assert last.get(key, -1) < number
            last[key] = number
    await world.service.drain()
    await running
