"""Sharing leases: all owned, evenly, without needless moves, never two owners of one epoch."""

import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.adapters.memory_leases import MemoryLeases
from replicator.core.leasing import (
    ASK_MAX,
    TAKE_FIRST,
    LeasePlan,
    LeaseSettings,
    Observer,
    View,
    is_finished,
    parents_done,
    plan,
    without_marks,
)
from replicator.core.model import (
    After,
    Checkpoint,
    ClaimMark,
    Lease,
    LinkName,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.errors import Fenced

ORDERS = SourceName("orders")
LINK = LinkName("orders:eu-west-1")
OTHER = LinkName("orders:ap-southeast-2")
LINKS = frozenset({LINK})
SETTINGS = LeaseSettings(duration_s=10.0, renew_s=3.0)
T = TypeVar("T")


def now(call: Coroutine[Any, Any, T]) -> T:
    """The result of a call to the memory store, which never suspends."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the memory store suspended")


class Worker:
    def __init__(self) -> None:
        self.observer = Observer()
        self.running: dict[ShardId, Lease] = {}


class Region:
    """Workers that follow the plan in rounds of 3 s on one table, in random order, some on what they read before.

    ``is_shared``: all plan on the same rows, read once for all at the beginning of every other round.
    """

    def __init__(self, shards: int, seed: int, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.rounds = 0
        self.posted: Sequence[Lease] = ()
        self.store = MemoryLeases()
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.moves = 0
        self.workers: dict[str, Worker] = {}
        self.epochs: dict[ShardId, int] = {}
        for number in range(shards):
            now(self.store.create(ORDERS, Shard(ShardId(f"s{number}")), "1"))

    def round(self) -> None:
        self.now_s += 3.0
        self.rounds += 1
        self.posted = now(self.store.rows(ORDERS))
        late = []
        for me in self.rng.sample(sorted(self.workers), len(self.workers)):
            self._beat(self.workers[me])
            if self.is_shared and self.rounds % 2:
                continue
            moves = self._planned(me)
            if self.rng.random() < 0.5:
                late.append((me, moves))
            else:
                self._act(me, moves)
        for me, moves in late:
            self._act(me, moves)

    def _beat(self, worker: Worker) -> None:
        for shard, held in list(worker.running.items()):
            try:
                worker.running[shard] = now(self.store.renew(held, {}))
            except Fenced:
                del worker.running[shard]
                continue
            if worker.running[shard].wanted_by is not None:
                now(self.store.release(worker.running.pop(shard), {}))

    def _planned(self, me: str) -> LeasePlan:
        worker = self.workers[me]
        rows = self.posted if self.is_shared else now(self.store.rows(ORDERS))
        worker.observer.observe(rows, self.now_s)
        return plan(rows, View(me, worker.running, worker.observer, self.now_s, SETTINGS, self.is_shared), LINKS)

    def _act(self, me: str, moves: LeasePlan) -> None:
        for row in moves.take:
            lease = now(self.store.acquire(row, me))
            if lease is not None:
                self.moves += 1
                assert lease.epoch > self.epochs.get(lease.shard, 0)
                self.epochs[lease.shard] = lease.epoch
                self.workers[me].running[lease.shard] = lease
        for row in moves.ask:
            now(self.store.ask(row, me))

    def settle(self) -> None:
        """As many rounds as a worker may need that has to ask for all of its shards."""
        for _ in range((1 + self.is_shared) * (16 + len(now(self.store.rows(ORDERS))))):
            self.round()

    def assert_even_and_at_rest(self) -> None:
        owners = [row.owner for row in now(self.store.rows(ORDERS))]
        loads = [owners.count(name) for name in self.workers]
        assert sum(loads) == len(owners), "a shard is read by nobody"
        assert max(loads) - min(loads) <= 1
        assert loads == [len(worker.running) for worker in self.workers.values()]
        before = self.moves
        for _ in range(6):
            self.round()
        assert self.moves == before, "shards move although the spread is even"


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_all_shards_are_owned_evenly_after_a_few_rounds_and_then_nothing_moves(
    shards: int, workers: int, seed: int, is_shared: bool
) -> None:
    region = Region(shards, seed, is_shared=is_shared)
    for number in range(workers):
        region.workers[f"w{number}"] = Worker()
    region.settle()
    region.assert_even_and_at_rest()


@given(
    st.integers(1, 20),
    st.integers(0, 10**6),
    st.lists(st.sampled_from(["join", "die", "leave", "let go"]), max_size=8),
    st.booleans(),
)
def test_deaths_departures_and_arrivals_leave_no_shard_alone(
    shards: int, seed: int, changes: list[str], is_shared: bool
) -> None:
    """``let go``: a worker that could not renew in time stopped what it ran, and its name still stands in the rows."""
    region = Region(shards, seed, is_shared=is_shared)
    region.workers["w0"] = Worker()
    for number, change in enumerate(changes, start=1):
        for _ in range(region.rng.randrange(8)):
            region.round()
        chosen = region.rng.choice(sorted(region.workers))
        if change == "join":
            region.workers[f"w{number}"] = Worker()
        elif change == "let go":
            region.workers[chosen].running.clear()
        elif len(region.workers) > 1:
            gone = region.workers.pop(chosen)
            for held in gone.running.values() if change == "leave" else ():
                now(region.store.release(held, {}))
    region.settle()
    region.assert_even_and_at_rest()


def lease(shard: str, owner: str | None, *, epoch: int = 1, beat: int = 0, wanted_by: str | None = None) -> Lease:
    return Lease(ORDERS, ShardId(shard), (), "1", owner, epoch, beat, wanted_by, {})


def moves_of(rows: list[Lease], me: str, age_s: float = 0.0, *, running: str = "") -> LeasePlan:
    """The plan of ``me``, who saw the rows ``age_s`` ago for the first time and runs the shards named by a letter."""
    observer = Observer()
    observer.observe(rows, 0.0)
    shards = frozenset(ShardId(letter) for letter in running)
    return plan(rows, View(me, shards, observer, age_s, SETTINGS), LINKS)


def test_a_lease_expires_by_the_observers_own_clock_only() -> None:
    rows = [lease("a", "dead")]
    assert moves_of(rows, "me", 9.9).take == ()
    assert moves_of(rows, "me", 10.0).take == tuple(rows)


def test_a_beat_makes_a_lease_young_again_and_a_wish_does_not() -> None:
    observer = Observer()
    observer.observe([lease("a", "w")], 0.0)
    observer.observe([lease("a", "w", beat=1)], 8.0)
    assert observer.age_s(ShardId("a"), 12.0) == 4.0
    observer.observe([lease("a", "w", beat=1, wanted_by="v")], 13.0)
    assert observer.age_s(ShardId("a"), 14.0) == 6.0


def test_an_owner_stops_before_an_observer_may_take_the_lease() -> None:
    assert SETTINGS.give_up_s < SETTINGS.duration_s
    assert SETTINGS.renew_s * 1.1 + SETTINGS.answer_s < SETTINGS.give_up_s, "one failed renewal is no loss"


def test_a_lease_in_my_name_that_i_do_not_run_is_taken_anew() -> None:
    rows = [lease("a", "me"), lease("b", "me")]
    assert moves_of(rows, "me", running="a").take == (rows[1],)
    assert moves_of(rows, "me", 99.0, running="ab").take == ()


def test_what_was_released_for_somebody_else_is_left_to_them_but_not_for_ever() -> None:
    rows = [lease("a", None, wanted_by="other")]
    assert moves_of(rows, "me", 9.0).take == ()
    assert moves_of(rows, "me", 10.0).take == tuple(rows)
    assert moves_of(rows, "other").take == tuple(rows)


def test_what_was_released_for_us_is_taken_whatever_our_share_is_by_now() -> None:
    mine = [lease("a", "me"), lease("b", "me")]
    granted = lease("c", None, wanted_by="me")
    assert moves_of([*mine, granted, lease("d", "w"), lease("e", "v")], "me", running="ab").take == (granted,)


def test_a_wish_for_a_lease_whose_owner_died_blocks_nobody() -> None:
    rows = [lease("a", "dead", wanted_by="dead too")]
    assert moves_of(rows, "me", 10.0).take == tuple(rows)


def test_no_wish_for_a_spread_of_one() -> None:
    even = [lease("a", "w"), lease("b", "w"), lease("c", "me")]
    assert moves_of(even, "me", running="c").ask == ()
    uneven = [*even, lease("d", "w")]
    assert len(moves_of(uneven, "me", running="c").ask) == 1
    assert moves_of([*uneven, lease("e", "w", wanted_by="me")], "me", running="c").ask == ()


def test_the_first_wish_is_a_single_one_then_a_worker_asks_for_what_it_lacks() -> None:
    """Others may be about to ask as well, and are seen by their first wish only."""
    rows = [lease(f"s{number}", "w") for number in range(40)]
    [first] = moves_of(rows, "me").ask
    wished = [replace(row, wanted_by="me") if row is first else row for row in rows]
    assert len(moves_of(wished, "me").ask) == ASK_MAX
    crowd = [replace(row, wanted_by=f"v{row.shard}") if row.shard in ("s1", "s2", "s3") else row for row in wished]
    assert len(moves_of(crowd, "me").ask) == 40 // 5 - 1


def test_a_worker_takes_a_few_at_first_and_then_as_many_as_it_has() -> None:
    """Or the first of many that start together would take everything and have to give it back."""
    rows = [lease(f"s{number}", None) for number in range(100)]
    assert len(moves_of(rows, "me").take) == TAKE_FIRST
    mine = [lease(f"m{number}", "me") for number in range(30)]
    everything = [*rows, *mine]
    observer = Observer()
    observer.observe(everything, 0.0)
    view = View("me", {row.shard for row in mine}, observer, 0.0, SETTINGS)
    assert len(plan(everything, view, LINKS).take) == 30


def test_wishes_that_stand_already_are_counted_as_fulfilled() -> None:
    rows = [lease("a", "w"), lease("b", "w"), lease("c", "w", wanted_by="v"), lease("d", "me")]
    assert moves_of(rows, "me", running="d").ask == ()


def test_nobody_is_asked_while_something_is_free() -> None:
    rows = [lease(shard, "w") for shard in "abcdef"] + [lease("g", None)]
    assert moves_of(rows, "me") == LeasePlan((rows[-1],))


def test_workers_that_see_the_same_rows_mostly_wish_for_different_ones() -> None:
    rows = [lease(f"s{number}", "w") for number in range(40)]
    asked = [moves_of(rows, f"me{number}").ask for number in range(8)]
    assert asked == [moves_of(rows, f"me{number}").ask for number in range(8)]
    assert len({row.shard for [row] in asked}) > 4


def test_a_finished_shard_counts_for_nobody() -> None:
    done = Lease(ORDERS, ShardId("z"), (), "1", None, 1, 0, None, {LINK: Checkpoint(ShardEnd())})
    assert moves_of([done], "me").take == ()
    assert is_finished(done, LINKS)
    assert not is_finished(done, {LINK, OTHER})


def test_a_child_waits_for_each_parent_per_link() -> None:
    child = Lease(ORDERS, ShardId("c"), (ShardId("a"), ShardId("b")), "1", None, 0, 0, None, {})

    def parent(name: str, position: ShardEnd | After) -> Lease:
        return Lease(ORDERS, ShardId(name), (), "1", None, 0, 0, None, {LINK: Checkpoint(position)})

    ended, half = parent("a", ShardEnd()), parent("b", After(SequenceNumber(5)))
    both = {row.shard: row for row in (ended, half)}
    assert not parents_done(child, LINK, both, both.keys())
    assert parents_done(child, LINK, {ended.shard: ended, half.shard: parent("b", ShardEnd())}, both.keys())
    assert not parents_done(child, OTHER, both, both.keys()), "another link has not begun"
    assert not parents_done(child, LINK, {ended.shard: ended}, both.keys()), "its row is yet to be made"
    assert parents_done(child, LINK, {ended.shard: ended}, [ended.shard]), "the source dropped it"


def test_a_crashed_shard_is_released_without_a_word_about_doubt() -> None:
    marked = Checkpoint(After(SequenceNumber(5)), 7, ClaimMark("store", 3))
    assert without_marks({LINK: marked, OTHER: Checkpoint(TrimHorizon())}) == {
        LINK: Checkpoint(After(SequenceNumber(5)), 7, None),
        OTHER: Checkpoint(TrimHorizon()),
    }
