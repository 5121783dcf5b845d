"""Sharing leases: all owned, evenly, without needless moves, never two owners of one epoch."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.memory_leases import MemoryLeases
from replicator.core.leasing import LeasePlan, LeaseSettings, Observer, plan
from replicator.core.model import Checkpoint, Lease, LinkName, Shard, ShardEnd, ShardId, SourceName

ORDERS = SourceName("orders")
LINK = LinkName("orders:eu-west-1")
LINKS = frozenset({LINK})
SETTINGS = LeaseSettings(duration_s=10.0, renew_s=3.0)


class Region:
    """Workers that follow the plan in rounds of 3 s, in random order, on one table."""

    def __init__(self, shards: int, seed: int) -> None:
        self.store = MemoryLeases()
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.moves = 0
        self.workers: dict[str, Observer] = {}
        self.epochs: dict[tuple[ShardId, int], str] = {}
        for number in range(shards):
            asyncio.run(self.store.create(ORDERS, Shard(ShardId(f"s{number}")), "1"))

    def rows(self) -> list[Lease]:
        return list(asyncio.run(self.store.rows(ORDERS)))

    def round(self) -> None:
        self.now_s += 3.0
        for worker in self.rng.sample(sorted(self.workers), len(self.workers)):
            asyncio.run(self._turn(worker))

    async def _turn(self, me: str) -> None:
        rows = list(await self.store.rows(ORDERS))
        for row in rows:
            if row.owner == me and row.wanted_by not in (None, me):
                await self.store.release(row, {})
            elif row.owner == me:
                await self.store.renew(row, {})
        rows = list(await self.store.rows(ORDERS))
        observer = self.workers[me]
        observer.observe(rows, self.now_s)
        holding = {row.shard for row in rows if row.owner == me}
        moves = plan(rows, observer, me, self.now_s, SETTINGS, LINKS, holding)
        for row in moves.take:
            lease = await self.store.acquire(row, me)
            if lease is not None:
                self.moves += 1
                assert self.epochs.setdefault((lease.shard, lease.epoch), me) == me
        if moves.ask is not None:
            await self.store.ask(moves.ask, me)

    def loads(self) -> list[int]:
        owners = [row.owner for row in self.rows()]
        return [owners.count(worker) for worker in self.workers]


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6))
def test_all_shards_are_owned_evenly_after_a_few_rounds_and_then_nothing_moves(
    shards: int, workers: int, seed: int
) -> None:
    region = Region(shards, seed)
    for number in range(workers):
        region.workers[f"w{number}"] = Observer()
    for _ in range(12 + 2 * shards):
        region.round()
    loads = region.loads()
    assert sum(loads) == shards
    assert max(loads) - min(loads) <= 1
    before = region.moves
    for _ in range(6):
        region.round()
    assert region.moves == before


@given(st.integers(1, 20), st.integers(0, 10**6), st.lists(st.sampled_from(["join", "die"]), max_size=6))
def test_deaths_and_arrivals_leave_no_shard_alone(shards: int, seed: int, changes: list[str]) -> None:
    region = Region(shards, seed)
    region.workers["w0"] = Observer()
    for number, change in enumerate(changes, start=1):
        for _ in range(region.rng.randrange(8)):
            region.round()
        if change == "join":
            region.workers[f"w{number}"] = Observer()
        elif len(region.workers) > 1:
            del region.workers[region.rng.choice(sorted(region.workers))]
    for _ in range(16 + 2 * shards):
        region.round()
    loads = region.loads()
    assert sum(loads) == shards
    assert max(loads) - min(loads) <= 1


def lease(shard: str, owner: str | None, *, beat: int = 0, wanted_by: str | None = None) -> Lease:
    return Lease(ORDERS, ShardId(shard), (), "1", owner, 1, beat, wanted_by, {})


def moves_of(rows: list[Lease], me: str, age_s: float = 0.0) -> LeasePlan:
    observer = Observer()
    observer.observe(rows, 0.0)
    return plan(rows, observer, me, age_s, SETTINGS, LINKS, {row.shard for row in rows if row.owner == me})


def test_a_lease_expires_by_the_observers_own_clock_only() -> None:
    rows = [lease("a", "dead")]
    assert moves_of(rows, "me", 9.9).take == ()
    assert moves_of(rows, "me", 10.0).take == tuple(rows)


def test_a_lease_in_my_name_that_i_do_not_run_is_taken_anew() -> None:
    rows = [lease("a", "me"), lease("b", "me")]
    observer = Observer()
    observer.observe(rows, 0.0)
    moves = plan(rows, observer, "me", 0.0, SETTINGS, LINKS, {ShardId("b")})
    assert moves.take == (rows[0],)


def test_a_beat_makes_a_lease_young_again() -> None:
    observer = Observer()
    observer.observe([lease("a", "w")], 0.0)
    observer.observe([lease("a", "w", beat=1)], 8.0)
    assert observer.age_s(ShardId("a"), 12.0) == 4.0


def test_what_was_released_for_somebody_else_is_left_to_them_but_not_for_ever() -> None:
    rows = [lease("a", None, wanted_by="other")]
    assert moves_of(rows, "me", 9.0).take == ()
    assert moves_of(rows, "me", 10.0).take == tuple(rows)
    assert moves_of(rows, "other").take == tuple(rows)


def test_one_wish_at_a_time_and_none_for_a_spread_of_one() -> None:
    even = [lease("a", "w"), lease("b", "w"), lease("c", "me")]
    assert moves_of(even, "me").ask is None
    uneven = [*even, lease("d", "w")]
    assert moves_of(uneven, "me").ask is not None
    assert moves_of([*uneven, lease("e", "w", wanted_by="me")], "me").ask is None


def test_a_finished_shard_counts_for_nobody() -> None:
    done = Lease(ORDERS, ShardId("z"), (), "1", None, 1, 0, None, {LINK: Checkpoint(ShardEnd())})
    assert moves_of([done], "me").take == ()
