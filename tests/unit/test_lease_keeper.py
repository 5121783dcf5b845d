"""The lease loop on a virtual clock: who runs which shard when, and what is stored, while stores and workers fail."""

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

import pytest

from replicator.adapters.memory_leases import MemoryLeases
from replicator.core.bulletin import Bulletin
from replicator.core.leasing import LeaseSettings
from replicator.core.model import (
    After,
    Checkpoint,
    ClaimMark,
    Lease,
    LinkName,
    Position,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
)
from replicator.core.retention import Kept
from replicator.errors import Fenced, StoreUnavailable, TransientError
from replicator.ports import Cursor, Page, SourceInfo
from replicator.worker.leasing import LeaseKeeper
from replicator.worker.retention import Retention

T = TypeVar("T")
ORDERS = SourceName("orders")
LINK = LinkName("orders:eu-west-1")
SETTINGS = LeaseSettings(duration_s=10.0, renew_s=3.0, list_every=3)
ANSWER_S = 0.01
ROUND_S = SETTINGS.renew_s * 1.2 + 5 * ANSWER_S
"""The longest time between two readings of the rows, or between two beats."""


# --- the clock -----------------------------------------------------------------------------------------------------


class JumpingSelector(selectors.SelectSelector):
    """Time passes only while everybody waits, and then at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits and no timer runs"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def stand_still(self, for_s: float) -> None:
        """The whole process is stopped for so long, and its clock goes on."""
        self._jumping.now_s += for_s


def virtually(story: Callable[[], Coroutine[object, object, None]]) -> None:
    """Tell the story on a virtual clock; nothing it started may be left over."""

    async def told() -> None:
        async with asyncio.timeout(3600):
            await story()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(told())


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until(is_true: Callable[[], bool], within_s: float = 120.0) -> float:
    """Wait for it; how long it took."""
    begun_s = now_s()
    while not is_true():
        assert now_s() - begun_s < within_s, "it did not happen in time"
        await asyncio.sleep(0.05)
    return now_s() - begun_s


# --- the parts -----------------------------------------------------------------------------------------------------


class Shards:
    """A source that only lists."""

    def __init__(self, *shards: Shard) -> None:
        self.listed = list(shards)
        self.incarnation = "1"
        self.is_away = False

    async def describe(self) -> SourceInfo:
        await asyncio.sleep(ANSWER_S)
        if self.is_away:
            raise TransientError("the stream does not answer")
        return SourceInfo(self.incarnation, 86_400_000)

    async def shards(self) -> Sequence[Shard]:
        return list(self.listed)

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        raise AssertionError("the keeper reads no records")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        raise AssertionError("the keeper reads no records")


class Way:
    """One worker's way to the lease table.

    ``away``: refused; ``hangs``: no answer, no effect; ``loses_answers``: done, and nobody hears of it.
    """

    def __init__(self, store: MemoryLeases) -> None:
        self._store = store
        self.state = "open"
        self.calls: Counter[str] = Counter()

    async def _go(self, call: Coroutine[object, object, T]) -> T:
        self.calls[call.__name__] += 1
        try:
            await asyncio.sleep(ANSWER_S)
        except asyncio.CancelledError:
            call.close()  # the caller died before its request left
            raise
        if self.state == "away":
            call.close()
            raise StoreUnavailable("the lease table does not answer")
        if self.state == "hangs":
            call.close()
            await asyncio.sleep(3600)
        result = await call
        if self.state == "loses_answers":
            raise StoreUnavailable("the answer was lost")
        return result

    async def rows(self, source: SourceName) -> Sequence[Lease]:
        return await self._go(self._store.rows(source))

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        await self._go(self._store.create(source, shard, incarnation))

    async def acquire(self, seen: Lease, owner: str) -> Lease | None:
        return await self._go(self._store.acquire(seen, owner))

    async def renew(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> Lease:
        return await self._go(self._store.renew(held, checkpoints))

    async def release(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> None:
        await self._go(self._store.release(held, checkpoints))

    async def ask(self, seen: Lease, wanted_by: str) -> bool:
        return await self._go(self._store.ask(seen, wanted_by))

    async def delete(self, seen: Lease) -> bool:
        return await self._go(self._store.delete(seen))

    async def bulletin(self, source: SourceName) -> Bulletin | None:
        return await self._go(self._store.bulletin(source))

    async def take_turn(self, source: SourceName, turn: int) -> bool:
        return await self._go(self._store.take_turn(source, turn))

    async def post(self, source: SourceName, bulletin: Bulletin) -> None:
        await self._go(self._store.post(source, bulletin))

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        return await self._go(self._store.link_start(source, link, proposed))

    async def kept(self, source: SourceName) -> Kept | None:
        return await self._go(self._store.kept(source))

    async def keep(self, source: SourceName, kept: Kept) -> None:
        await self._go(self._store.keep(source, kept))


class Silence:
    """Telemetry that keeps the counts."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def count(self, name: str, value: int, /, **labels: str) -> None:
        assert (name, set(labels)) == ("lease_moves_total", {"source", "kind"})
        self.kinds.append(labels["kind"])

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Runner:
    """Runs until it is drained, finished or failed. One step a second; a drain takes ``drain_s``."""

    drain_s = 0.5

    def __init__(self, me: str, lease: Lease, region: "Region") -> None:
        self.me, self.lease, self._region = me, lease, region
        self.steps = 0
        self.is_draining = False
        self.end: Position | None = None
        self.failure: Exception | None = None
        self.started_s = self.stopped_s = float("inf")
        self._is_whole = False

    async def run(self) -> None:
        self.started_s = now_s()
        self._region.start(self)
        try:
            while not self.is_draining and self.end is None:
                await asyncio.sleep(0.5)
                self.steps += 1
                if self.failure is not None:
                    raise self.failure
            await asyncio.sleep(self.drain_s)
            self._is_whole = True
        finally:
            self.stopped_s = now_s()
            self._region.running.remove(self)

    def checkpoints(self) -> dict[LinkName, Checkpoint]:
        mark = ClaimMark("store", self.steps) if self._is_whole else None
        return {LINK: Checkpoint(self.end or After(SequenceNumber(self.steps)), self.lease.epoch, mark)}

    def drain(self) -> None:
        self.is_draining = True


class Region:
    """Some workers on one table. Two runners of one shard at once are a breach, whatever happens."""

    def __init__(self, shards: int) -> None:
        self.store = MemoryLeases()
        self.source = Shards(*[Shard(ShardId(f"s{number}")) for number in range(shards)])
        self.running: list[Runner] = []
        self.past: list[Runner] = []
        self.ways: dict[str, Way] = {}
        self.telemetry: dict[str, Silence] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.keepers: dict[str, LeaseKeeper] = {}

    @staticmethod
    def now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def worker(self, me: str, settings: LeaseSettings = SETTINGS) -> LeaseKeeper:
        way = self.ways[me] = Way(self.store)
        telemetry = self.telemetry[me] = Silence()
        keeper = self.keepers[me] = LeaseKeeper(
            store=way,
            source=self.source,
            source_name=ORDERS,
            links=frozenset({LINK}),
            me=me,
            settings=settings,
            start_runner=lambda lease: Runner(me, lease, self),
            retention=Retention(way, ORDERS, self),
            telemetry=telemetry,
            rng=random.Random(me),
        )
        self.tasks[me] = asyncio.create_task(keeper.run())
        return keeper

    def start(self, runner: Runner) -> None:
        rivals = [other.me for other in self.running if other.lease.shard == runner.lease.shard]
        assert not rivals, f"{runner.me} starts {runner.lease.shard} while {rivals} run it"
        row = (runner.lease.shard, runner.lease.incarnation)
        epochs = [other.lease.epoch for other in self.past if (other.lease.shard, other.lease.incarnation) == row]
        assert all(epoch < runner.lease.epoch for epoch in epochs)
        self.running.append(runner)
        self.past.append(runner)

    def loads(self) -> dict[str, int]:
        owners = [runner.me for runner in self.running]
        return {me: owners.count(me) for me in sorted(set(owners))}

    def rows(self) -> dict[ShardId, Lease]:
        return {row.shard: row for (_, _), row in self.store._rows.items()}

    async def kill(self, me: str) -> None:
        """Its process is gone: what it ran stops, and no word of it reaches the table."""
        self.ways[me].state = "hangs"
        self.tasks[me].cancel()
        await asyncio.wait((self.tasks[me],))

    async def end(self) -> None:
        for way in self.ways.values():
            way.state = "open"
        alive = [me for me, task in self.tasks.items() if not task.done()]
        await asyncio.gather(*[self.keepers[me].drain() for me in alive])
        await asyncio.gather(*[self.tasks[me] for me in alive])
        assert not self.running


def story(shards: int) -> Callable[[Callable[[Region], Awaitable[None]]], Callable[[], None]]:
    """A test on a virtual clock in a region with so many shards; all workers left at the end are drained."""

    def decorate(tell: Callable[[Region], Awaitable[None]]) -> Callable[[], None]:
        async def told() -> None:
            region = Region(shards)
            await tell(region)
            await region.end()

        def test() -> None:
            virtually(told)

        test.__doc__ = tell.__doc__
        return test

    return decorate


# --- sharing -------------------------------------------------------------------------------------------------------


@story(shards=12)
async def test_workers_that_join_one_by_one_share_evenly_without_taking_by_force(region: Region) -> None:
    region.worker("w1")
    await until(lambda: region.loads() == {"w1": 12})
    region.worker("w2")
    region.worker("w3")
    await until(lambda: region.loads() == {"w1": 4, "w2": 4, "w3": 4})
    handed = [runner for runner in region.past if runner.lease.epoch > 1]
    assert all(runner.lease.checkpoints[LINK].released is not None for runner in handed)
    assert "taken_expired" not in [kind for told in region.telemetry.values() for kind in told.kinds]
    settled = len(region.past)
    await asyncio.sleep(20 * ROUND_S)
    assert len(region.past) == settled


@story(shards=6)
async def test_the_shards_of_a_dead_worker_move_when_its_leases_expired_and_no_sooner(region: Region) -> None:
    region.worker("w1")
    region.worker("w2")
    await until(lambda: region.loads() == {"w1": 3, "w2": 3})
    await region.kill("w1")
    took_s = await until(lambda: region.loads() == {"w2": 6})
    assert SETTINGS.duration_s - ROUND_S <= took_s <= SETTINGS.duration_s + 2 * ROUND_S


@story(shards=6)
async def test_the_shards_of_a_drained_worker_move_at_once_with_their_last_checkpoints(region: Region) -> None:
    drained = region.worker("w1")
    region.worker("w2")
    await until(lambda: region.loads() == {"w1": 3, "w2": 3})
    await drained.drain()
    await region.tasks["w1"]
    took_s = await until(lambda: region.loads() == {"w2": 6})
    assert took_s <= ROUND_S
    last = {runner.lease.shard: runner for runner in region.past if runner.me == "w1"}
    for runner in region.running:
        if runner.lease.shard in last:
            assert runner.lease.checkpoints == last[runner.lease.shard].checkpoints()


@story(shards=2)
async def test_a_worker_that_asked_and_died_keeps_nothing_from_the_others(region: Region) -> None:
    region.worker("w1")
    await until(lambda: region.loads() == {"w1": 2})
    region.worker("w2")
    await until(lambda: any(row.wanted_by == "w2" for row in region.rows().values()))
    await region.kill("w2")
    await until(lambda: len(region.running) == 1)
    await until(lambda: region.loads() == {"w1": 2}, within_s=SETTINGS.duration_s + 2 * ROUND_S)


# --- a store that fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["away", "hangs"])
def test_a_worker_cut_off_from_the_table_stops_by_its_own_clock_before_another_starts(state: str) -> None:
    """`Region.start` refuses a second runner while the first one runs."""

    @story(shards=8)
    async def tell(region: Region) -> None:
        region.worker("w1")
        region.worker("w2")
        await until(lambda: region.loads() == {"w1": 4, "w2": 4})
        region.ways["w1"].state = state
        cut_s = now_s()
        await until(lambda: region.loads() == {"w2": 8})
        stopped = [runner.stopped_s - cut_s for runner in region.past if runner.stopped_s > cut_s and runner.me == "w1"]
        assert SETTINGS.give_up_s - ROUND_S <= min(stopped)
        assert max(stopped) <= SETTINGS.give_up_s
        assert region.telemetry["w1"].kinds.count("not_renewed") == 4
        region.ways["w1"].state = "open"
        await until(lambda: region.loads() == {"w1": 4, "w2": 4})

    tell()


@story(shards=3)
async def test_a_single_worker_takes_back_what_it_had_to_give_up(region: Region) -> None:
    keeper = region.worker("w1")
    await until(lambda: region.loads() == {"w1": 3})
    region.ways["w1"].state = "away"
    await until(lambda: not region.running)
    assert "the lease table does not answer" in keeper.unready()[0]
    region.ways["w1"].state = "open"
    assert await until(lambda: region.loads() == {"w1": 3}) <= ROUND_S
    assert {runner.lease.epoch for runner in region.running} == {2}
    assert keeper.unready() == []


@story(shards=3)
async def test_a_lease_taken_without_hearing_of_it_is_run_soon_all_the_same(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.rows()) == 3)
    region.ways["w1"].state = "loses_answers"
    await asyncio.sleep(2 * ROUND_S)
    region.ways["w1"].state = "open"
    assert await until(lambda: region.loads() == {"w1": 3}) <= 2 * ROUND_S


@story(shards=4)
async def test_one_failed_renewal_costs_nothing(region: Region) -> None:
    region.worker("w1")
    await until(lambda: region.loads() == {"w1": 4})
    region.ways["w1"].state = "away"
    await asyncio.sleep(ROUND_S)
    region.ways["w1"].state = "open"
    await asyncio.sleep(5 * ROUND_S)
    assert len(region.past) == 4


@story(shards=2)
async def test_a_drain_without_a_table_ends_when_the_leases_are_given_up(region: Region) -> None:
    keeper = region.worker("w1")
    await until(lambda: region.loads() == {"w1": 2})
    region.ways["w1"].state = "away"
    begun_s = now_s()
    await keeper.drain()
    await region.tasks["w1"]
    assert now_s() - begun_s <= SETTINGS.give_up_s + ROUND_S


@story(shards=2)
async def test_a_cancelled_keeper_leaves_nothing_running_and_releases_nothing(region: Region) -> None:
    region.worker("w1")
    await until(lambda: region.loads() == {"w1": 2})
    region.tasks["w1"].cancel()
    await asyncio.wait((region.tasks["w1"],))
    assert region.tasks["w1"].cancelled()
    assert not region.running
    assert {row.owner for row in region.rows().values()} == {"w1"}


@story(shards=1)
async def test_a_worker_that_stood_still_knows_that_others_may_have_taken_its_lease(region: Region) -> None:
    """Before any of its own timers has run again: that is when it could send what it had ready."""
    keeper = region.worker("w1")
    await until(lambda: len(region.running) == 1)
    [runner] = region.running
    assert keeper.surely_holds(runner.lease)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.stand_still(SETTINGS.give_up_s)
    assert not keeper.surely_holds(runner.lease)
    await until(lambda: len(region.running) == 1 and region.running[0] is not runner)
    assert keeper.surely_holds(region.running[0].lease)
    assert not keeper.surely_holds(runner.lease), "the same shard, an earlier epoch"


# --- checkpoints ---------------------------------------------------------------------------------------------------


@story(shards=1)
async def test_checkpoint_now_returns_when_the_checkpoints_are_stored_and_only_then(region: Region) -> None:
    keeper = region.worker("w1")
    await until(lambda: len(region.running) == 1)
    [runner] = region.running
    await asyncio.sleep(10)
    await keeper.checkpoint_now(runner.lease.shard)
    assert region.rows()[runner.lease.shard].checkpoints == runner.checkpoints()
    for state in ("away", "hangs"):
        region.ways["w1"].state = state
        with pytest.raises(StoreUnavailable):
            await keeper.checkpoint_now(runner.lease.shard)
    region.ways["w1"].state = "open"
    taken = await region.store.acquire(region.rows()[runner.lease.shard], "somebody")
    assert taken is not None
    for _ in range(2):
        with pytest.raises(Fenced):
            await keeper.checkpoint_now(runner.lease.shard)
    await region.store.release(taken, {})
    await until(lambda: [other.lease.epoch for other in region.running] == [3])


@story(shards=1)
async def test_a_fenced_shard_is_stopped_and_stores_nothing_more(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.running) == 1)
    await asyncio.sleep(2 * ROUND_S)
    taken = await region.store.acquire(region.rows()[ShardId("s0")], "somebody")
    assert taken is not None
    await until(lambda: not region.running, within_s=ROUND_S)
    assert region.telemetry["w1"].kinds[-1] == "fenced"
    assert region.rows()[ShardId("s0")] == taken


@story(shards=3)
async def test_a_shard_that_fails_is_released_without_a_mark_and_tried_again(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.running) == 3)
    failing, *others = region.running
    failing._is_whole = True
    failing.failure = ValueError("a bug in one shard")
    await until(lambda: len(region.running) == 2)
    await until(lambda: len(region.running) == 3, within_s=3 * ROUND_S)
    again = region.running[-1]
    assert (again.lease.shard, again.lease.epoch) == (failing.lease.shard, failing.lease.epoch + 1)
    assert again.lease.checkpoints[LINK] == Checkpoint(After(SequenceNumber(failing.steps)), 1, None)
    assert set(others) < set(region.running)
    assert "failed" in region.telemetry["w1"].kinds


# --- shards that end -----------------------------------------------------------------------------------------------


@story(shards=1)
async def test_children_are_found_soon_after_their_parent_ended_and_may_start_then(region: Region) -> None:
    keeper = region.worker("w1")
    await until(lambda: len(region.running) == 1)
    [parent] = region.running
    child = Shard(ShardId("child"), (parent.lease.shard,))
    region.source.listed.append(child)
    await until(lambda: len(region.running) == 2)
    assert not keeper.parents_done(region.rows()[child.id], LINK)
    parent.end = ShardEnd()
    await until(lambda: keeper.parents_done(region.rows()[child.id], LINK), within_s=2 * ROUND_S)
    assert [runner.lease.shard for runner in region.running] == [child.id]
    region.source.listed.remove(Shard(parent.lease.shard))
    await until(lambda: list(region.rows()) == [child.id])
    assert keeper.parents_done(region.rows()[child.id], LINK)


@story(shards=2)
async def test_the_row_of_a_finished_shard_goes_even_if_its_owner_died_before_the_release(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.running) == 2)
    row = region.rows()[ShardId("s0")]
    await region.kill("w1")
    await region.store.renew(row, {LINK: Checkpoint(ShardEnd())})
    region.source.listed.pop(0)
    region.worker("w2")
    await until(lambda: list(region.rows()) == [ShardId("s1")])


@story(shards=2)
async def test_a_worker_with_an_older_listing_removes_no_row_of_a_newer_shard(region: Region) -> None:
    """Shards it has not heard of are no more in its listing than those that are gone. `Region.start` checks epochs."""
    seldom = LeaseSettings(duration_s=10.0, renew_s=3.0, list_every=10_000)
    region.worker("w1", seldom)
    region.worker("w2", seldom)
    await until(lambda: region.loads() == {"w1": 1, "w2": 1})
    await asyncio.sleep(2 * ROUND_S)
    [parent] = [runner for runner in region.running if runner.me == "w1"]
    child = Shard(ShardId("child"), (parent.lease.shard,))
    region.source.listed.append(child)
    parent.end = ShardEnd()
    await until(lambda: [runner.lease.shard for runner in region.running if runner.me == "w1"] == [child.id])
    next(runner for runner in region.running if runner.me == "w1").end = ShardEnd()
    await until(lambda: region.loads() == {"w2": 1})
    await asyncio.sleep(SETTINGS.duration_s + 5 * ROUND_S)
    assert region.rows()[child.id].checkpoints[LINK].position == ShardEnd()
    assert region.loads() == {"w2": 1}


@story(shards=1)
async def test_a_parent_that_an_older_listing_does_not_name_yet_is_not_taken_for_finished(region: Region) -> None:
    """Another worker has listed a parent and its child, and has made the row of the child only."""
    keeper = region.worker("w1", LeaseSettings(duration_s=10.0, renew_s=3.0, list_every=10_000))
    await until(lambda: len(region.running) == 1)
    parent = Shard(ShardId("parent"))
    child = Shard(ShardId("child"), (parent.id,))
    region.source.listed += [child, parent]
    await region.store.create(ORDERS, child, "1")
    await until(lambda: child.id in {runner.lease.shard for runner in region.running})
    assert not keeper.parents_done(region.rows()[child.id], LINK)
    await until(lambda: parent.id in {runner.lease.shard for runner in region.running})


@story(shards=1)
async def test_a_finished_shard_stays_as_long_as_the_source_lists_it(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.running) == 1)
    region.running[0].end = ShardEnd()
    await asyncio.sleep(10 * ROUND_S)
    assert region.rows()[ShardId("s0")].checkpoints[LINK].position == ShardEnd()
    assert len(region.past) == 1


# --- a source that fails -------------------------------------------------------------------------------------------


@story(shards=2)
async def test_a_source_that_does_not_answer_makes_unready_and_stops_nothing(region: Region) -> None:
    keeper = region.worker("w1")
    await until(lambda: len(region.running) == 2)
    region.source.is_away = True
    await until(lambda: keeper.unready() == ["source of orders: the stream does not answer"])
    await asyncio.sleep(5 * ROUND_S)
    assert len(region.past) == 2
    region.source.is_away = False
    await until(lambda: keeper.unready() == [], within_s=ROUND_S)


@story(shards=3)
async def test_a_source_made_anew_gets_new_rows_soon(region: Region) -> None:
    region.worker("w1")
    await until(lambda: len(region.running) == 3)
    old = list(region.running)
    await asyncio.sleep(2 * ROUND_S)
    region.source.incarnation = "2"
    await until(lambda: {runner.lease.incarnation for runner in region.running} == {"2"})
    await until(lambda: len(region.running) == 3, within_s=3 * ROUND_S)
    assert all(runner.lease.checkpoints == {} for runner in region.running)
    assert all(runner.stopped_s < float("inf") for runner in old)
    assert region.telemetry["w1"].kinds.count("source_made_anew") == 3


@story(shards=2)
async def test_a_worker_that_has_not_looked_at_the_new_source_yet_removes_none_of_its_rows(region: Region) -> None:
    first = region.worker("w1")
    await until(lambda: region.loads() == {"w1": 2})
    region.worker("w2", LeaseSettings(duration_s=10.0, renew_s=3.0, list_every=10_000))
    await until(lambda: region.loads() == {"w1": 1, "w2": 1})
    region.source.incarnation = "2"
    await until(lambda: "2" in {runner.lease.incarnation for runner in region.running if runner.me == "w1"})
    await first.drain()
    await until(lambda: region.loads() == {"w2": 2} and {r.lease.incarnation for r in region.running} == {"2"})
    handed = {runner.lease.shard: runner for runner in region.past if runner.me == "w1"}
    for runner in region.running:
        before = handed.get(runner.lease.shard)
        if before is not None and before.lease.incarnation == "2":
            assert runner.lease.checkpoints == before.checkpoints()
