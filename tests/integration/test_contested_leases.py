"""Workers that contend for the shards of one source on a real lease table: evenly shared, moved, never run twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from replicator.adapters.dynamodb_leases import DynamoDbLeases, ensure_table
from replicator.aws.session import AwsSession
from replicator.bootstrap import WallClock
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
    ShardId,
    SourceName,
)
from replicator.dev.proxy import Proxy
from replicator.ports import Cursor, Page, SourceInfo
from replicator.worker.leasing import LeaseKeeper
from replicator.worker.retention import Retention

ORDERS = SourceName("orders")
LINK = LinkName("orders:eu-west-1")
SETTINGS = LeaseSettings(duration_s=3.0, renew_s=0.5)
SHARDS = 12
DEADLINE_S = 60.0
POLL_S = 0.02

pytestmark = pytest.mark.slow


class Listing:
    """A source of which only the list of shards is asked."""

    async def describe(self) -> SourceInfo:
        return SourceInfo("1", 86_400_000)

    async def shards(self) -> Sequence[Shard]:
        return [Shard(ShardId(f"shardId-{number:012}")) for number in range(SHARDS)]

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        raise AssertionError("the keeper reads no records")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        raise AssertionError("the keeper reads no records")


class Unrecorded:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Runner:
    """Runs until it is drained. What it has done is the number of its epoch, marked when it could finish."""

    def __init__(self, me: str, lease: Lease, contest: "Contest") -> None:
        self.me, self.lease, self._contest = me, lease, contest
        self._drained = asyncio.Event()
        self._is_whole = False

    async def run(self) -> None:
        self._contest.begin(self)
        try:
            await self._drained.wait()
            self._is_whole = True
        finally:
            self._contest.running.remove(self)

    def checkpoints(self) -> dict[LinkName, Checkpoint]:
        mark = ClaimMark(self.me, self.lease.epoch) if self._is_whole else None
        return {LINK: Checkpoint(After(SequenceNumber(self.lease.epoch)), 1, mark)}

    def drain(self) -> None:
        self._drained.set()


class Contest:
    """Workers on one table, each with a way of its own to it. A shard that is run twice is a breach."""

    def __init__(self, url: str, table: str, stack: AsyncExitStack) -> None:
        self._url, self._table, self._stack = url, table, stack
        self.running: list[Runner] = []
        self.begun: list[Runner] = []
        self.breaches: list[str] = []
        self.keepers: dict[str, LeaseKeeper] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ways: dict[str, Proxy] = {}

    async def join(self, me: str) -> None:
        way = self.ways[me] = await self._stack.enter_async_context(Proxy(self._url))
        session = AwsSession().client("dynamodb", "us-east-1", way.url, timeout_s=SETTINGS.answer_s)
        store = DynamoDbLeases(await self._stack.enter_async_context(session), self._table)
        self.keepers[me] = LeaseKeeper(
            store=store,
            source=Listing(),
            source_name=ORDERS,
            links=frozenset({LINK}),
            me=me,
            settings=SETTINGS,
            start_runner=lambda lease: Runner(me, lease, self),
            retention=Retention(store, ORDERS, WallClock()),
            telemetry=Unrecorded(),
            rng=random.Random(me),
        )
        self.tasks[me] = asyncio.create_task(self.keepers[me].run())

    def begin(self, runner: Runner) -> None:
        for other in self.running:
            if other.lease.shard == runner.lease.shard:
                self.breaches.append(f"{runner.me} runs {runner.lease.shard} while {other.me} does")
        for other in self.begun:
            if (other.lease.shard, other.lease.epoch) == (runner.lease.shard, runner.lease.epoch):
                self.breaches.append(f"{runner.me} and {other.me} had {runner.lease.shard} under one epoch")
        self.running.append(runner)
        self.begun.append(runner)

    def loads(self) -> dict[str, int]:
        owners = [runner.me for runner in self.running]
        return {me: owners.count(me) for me in sorted(set(owners))}

    async def until(self, **loads: int) -> float:
        """Wait until exactly these workers run so many shards each; how long it took, in s."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while self.loads() != loads:
            for me, task in self.tasks.items():
                assert not task.done() or task.cancelled() or task.exception() is None, f"{me} failed"
            assert loop.time() - begun_s < DEADLINE_S, f"{self.loads()} instead of {loads}"
            await asyncio.sleep(POLL_S)
        return loop.time() - begun_s

    async def end(self) -> None:
        alive = [me for me, task in self.tasks.items() if not task.done()]
        await asyncio.gather(*[self.keepers[me].drain() for me in alive])
        await asyncio.gather(*[self.tasks[me] for me in alive])
        assert self.breaches == []
        assert self.running == []


@pytest.fixture
async def contest(aws_url: str, new_name: Callable[[str], str]) -> AsyncIterator[Contest]:
    table = new_name("contested")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AwsSession().client("dynamodb", "us-east-1", aws_url))
        await ensure_table(client, table)
        contest = Contest(aws_url, table, stack)
        for me in ("w1", "w2", "w3"):
            await contest.join(me)
        await contest.until(w1=4, w2=4, w3=4)
        yield contest
        await contest.end()


async def test_shards_move_when_a_vanished_workers_leases_expire_and_at_once_from_one_that_drains(
    contest: Contest,
) -> None:
    contest.tasks["w1"].cancel()
    took_s = await contest.until(w2=6, w3=6)
    # The last renewal lies up to 1.1 x renew_s back, and the others saw it some time after it took effect.
    assert took_s >= SETTINGS.duration_s - 2 * SETTINGS.renew_s
    before = set(contest.running)
    await contest.keepers["w2"].drain()
    await contest.until(w3=12)
    moved = [runner.lease for runner in contest.running if runner not in before]
    assert len(moved) == 6
    for lease in moved:
        assert lease.checkpoints == {
            LINK: Checkpoint(After(SequenceNumber(lease.epoch - 1)), 1, ClaimMark("w2", lease.epoch - 1))
        }


async def test_a_worker_cut_off_from_the_table_has_stopped_before_others_take_its_shards_and_gets_its_share_again(
    contest: Contest,
) -> None:
    contest.ways["w1"].cut()
    await contest.until(w2=6, w3=6)
    assert contest.keepers["w1"].unready() != []
    begun = len(contest.begun)
    contest.ways["w1"].heal()
    await contest.until(w1=4, w2=4, w3=4)
    assert contest.keepers["w1"].unready() == []
    given = [runner.lease for runner in contest.begun[begun:]]
    assert all(lease.checkpoints[LINK].released is not None for lease in given), "asked for, not taken"
    begun = len(contest.begun)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 4 * SETTINGS.renew_s
    while loop.time() < until_s:
        await asyncio.sleep(POLL_S)
        assert len(contest.begun) == begun, "shards move although they are shared evenly"
