"""A place that the source no longer has is left, loudly: counted, said once, and never in the way of what is kept."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from small_world import LINK, SOURCE, Worker, World, in_virtual_time, until
from structlog.testing import capture_logs

from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.core.model import (
    After,
    AtTimestamp,
    Checkpoint,
    Position,
    SequenceNumber,
    ShardId,
    TrimHorizon,
)
from replicator.errors import Fenced, PositionLost, TransientError
from replicator.ports import Cursor, Page
from replicator.worker.link import LinkSettings
from replicator.worker.lost_position import Losses
from replicator.worker.one_incarnation import OneIncarnation
from replicator.worker.retention import Retention
from replicator.worker.shard_log import LOOKS_S

FIRST = ShardId("shardId-000000000000")
HOUR_S = 3600
LONGER_S = 65 * 60
GONE = "retention_losses_total/shard_gone"
PERHAPS = "retention_losses_total/perhaps_trimmed"
RESTARTS = "shard_restarts_total/position_lost"


class Watched(MemorySource):
    """Counts questions, and fails as it is told."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream)
        self.asked = 0
        self.is_away = False
        self.unanswered = 0
        self.is_gone_when_asked = False
        self.missing = 0
        """So many times more the shard is not found."""
        self.trimmed_at: Position | None = None
        self.is_lost = False
        """Whatever is read."""

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if self.missing:
            self.missing -= 1
            raise PositionLost("no such shard")
        if position == self.trimmed_at:
            raise PositionLost("trimmed", is_trimmed=True)
        return await super().open(shard, position)

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if self.is_away:
            raise TransientError("away", retry_after_s=600)
        if self.is_lost:
            raise PositionLost("lost")
        return await super().read(cursor, records_max)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        self.asked += 1
        if self.is_gone_when_asked:
            raise PositionLost("gone meanwhile")
        if self.unanswered:
            self.unanswered -= 1
            raise TransientError("throttled", code="throttled")
        return await super().is_kept(shard, position)


async def stopped_after(world: World, count: int) -> None:
    """A worker forwards so many, stores its checkpoint, and dies."""
    worker = Worker(world, "a", LinkSettings())
    world.write(count)
    await until(lambda: len(world.stored()) == count)
    await asyncio.sleep(60)
    await worker.kill()


def kept_world() -> World:
    """The source keeps a record for an hour, the peer for ever."""
    world = World()
    world.source.retention_ms = 3_600_000
    world.peer.retention_ms = 10**12
    return world


async def retention_of(world: World) -> Retention:
    retention = Retention(world.leases, SOURCE, world)
    await retention.note(world.source.retention_ms)
    return retention


def lengthen(world: World, hours: int) -> None:
    """What is older than the retention of before is gone by then."""
    world.source.list_shards()
    world.source.retention_ms = hours * HOUR_S * 1000


def named(told: Sequence[Any], event: str) -> list[Any]:
    return [line for line in told if line["event"] == event]


# --- the shard is gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [50, 65])
def test_a_shard_that_left_the_source_unfinished_is_given_up_and_its_children_go_on(minutes: int) -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.write(5)
        world.source.split(FIRST)
        await asyncio.sleep(minutes * 60)
        world.write(30)
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings())
            await asyncio.sleep(HOUR_S)
        is_lost = minutes > 60
        assert len(world.stored()) == (50 if is_lost else 55)
        counts = worker.status()["counts"]
        assert counts.get(GONE, 0) == counts.get("shard_restarts_total/shard_gone", 0) == int(is_lost)
        assert len(named(told, "shard.gone")) == int(is_lost)
        assert not named(told, "shard.position_lost")
        assert worker.tally.gauges["replication_lag_ms"] == 0
        assert FIRST not in worker.status()["shards"]
        await worker.kill()

    in_virtual_time(history())


def test_what_was_gone_and_given_up_leaves_no_row_and_is_given_up_once() -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.source.split(FIRST)
        await asyncio.sleep(LONGER_S)
        first = Worker(world, "b", LinkSettings())
        await asyncio.sleep(HOUR_S)
        await first.kill()
        second = Worker(world, "c", LinkSettings())
        await asyncio.sleep(HOUR_S)
        assert GONE not in second.status()["counts"]
        assert FIRST not in {row.shard for row in await world.leases.rows(SOURCE)}
        await second.kill()

    in_virtual_time(history())


@pytest.mark.parametrize("missing", [1, 3])
def test_a_shard_that_is_missing_for_a_moment_is_not_given_up(missing: int) -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.write(5)
        source = Watched(world.source)
        source.missing = missing  # the first is the reading's own
        worker = Worker(world, "b", LinkSettings(), source=source)
        await asyncio.sleep(HOUR_S)
        counts = worker.status()["counts"]
        assert GONE not in counts
        assert counts[RESTARTS] == 1
        assert len(world.stored()) == 25
        await worker.kill()

    in_virtual_time(history())


def test_a_shard_of_a_stream_made_anew_is_not_given_up_under_the_old_lease() -> None:
    async def history() -> None:
        stream = MemoryStream(World.now_ms, 2)
        source = OneIncarnation(MemorySource(stream), str(stream.created_ms))
        stream.recreate(1)
        with pytest.raises(Fenced):
            await source.open(ShardId("shardId-000000000001"), TrimHorizon())

    in_virtual_time(history())


# --- the position is lost, the shard is not -----------------------------------------------------------------------


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_an_impossible_position_and_a_trimmed_one_begin_again_at_the_links_own_start(is_trimmed: bool) -> None:
    async def history() -> None:
        world = kept_world()
        world.write(7)  # before the link's start
        await asyncio.sleep(10)
        start = AtTimestamp(world.now_ms())
        await asyncio.sleep(10)
        world.write(3)
        source = Watched(world.source)
        await store(world, After(SequenceNumber(10**60)))
        source.trimmed_at = After(SequenceNumber(10**60)) if is_trimmed else None
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings(), source=source, start=start)
            await asyncio.sleep(60)
        assert sorted(world.stored()) == [7, 8, 9]
        reason = "trimmed" if is_trimmed else "position_lost"
        counts = worker.status()["counts"]
        assert counts[f"shard_restarts_total/{reason}"] == 1
        assert counts.get("retention_losses_total/trimmed", 0) == int(is_trimmed)
        [line] = named(told, "shard.position_lost")
        assert line["restart"] == f"at_timestamp:{start.ms}"
        await worker.kill()

    in_virtual_time(history())


async def store(world: World, position: Position) -> None:
    """A checkpoint as a worker that is gone left it."""
    shards = world.source.list_shards()
    await world.leases.create(SOURCE, shards[0], str(world.source.created_ms))
    [row] = await world.leases.rows(SOURCE)
    lease = await world.leases.acquire(row, "a")
    assert lease is not None
    await world.leases.release(lease, {LINK: Checkpoint(position)})


def test_a_position_that_is_lost_again_and_again_is_met_at_a_walk() -> None:
    async def history() -> None:
        world = kept_world()
        source = Watched(world.source)
        source.is_lost = True
        worker = Worker(world, "a", LinkSettings(), source=source)
        await asyncio.sleep(300)
        assert 100 < worker.status()["counts"][RESTARTS] < 300
        source.is_lost = False
        world.write(5)
        await asyncio.sleep(60)
        assert len(world.stored()) == 5
        await worker.kill()

    in_virtual_time(history())


# --- the source passed over what was trimmed ----------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [50, 65])
def test_records_that_were_trimmed_while_no_worker_ran_are_counted_and_the_rest_goes_on(minutes: int) -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.write(5)
        await asyncio.sleep(minutes * 60)
        world.write(30)
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings())
            await asyncio.sleep(600)
        is_lost = minutes > 60
        assert len(world.stored()) == (50 if is_lost else 55)
        assert worker.status()["counts"].get(PERHAPS, 0) == int(is_lost)
        assert [line["log_level"] for line in named(told, "shard.may_have_lost")] == ["error"] * is_lost
        await worker.kill()

    in_virtual_time(history())


def test_nothing_left_at_all_is_counted_as_well() -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.write(5)
        await asyncio.sleep(LONGER_S)
        worker = Worker(world, "b", LinkSettings())
        await asyncio.sleep(600)
        assert worker.status()["counts"][PERHAPS] == 1
        await worker.kill()

    in_virtual_time(history())


@pytest.mark.parametrize("raised_h", [1, 7])
def test_a_link_that_had_only_tried_is_known_by_its_first_attempt(raised_h: int) -> None:
    """Also when the retention was lengthened while no worker ran, too late."""

    async def history() -> None:
        world = kept_world()
        worker = Worker(world, "a", LinkSettings())
        world.write(20)
        await until(lambda: len(world.stored()) == 20)
        await worker.kill()  # before any checkpoint: the attempt floor alone is stored
        assert (await world.checkpoint()).position == TrimHorizon()
        await asyncio.sleep(LONGER_S)
        lengthen(world, raised_h)
        worker = Worker(world, "b", LinkSettings())
        await asyncio.sleep(600)
        assert worker.status()["counts"][PERHAPS] == 1
        await worker.kill()

    in_virtual_time(history())


@pytest.mark.parametrize("raised_h", [1, 7])
def test_a_link_whose_peer_was_away_for_longer_than_the_retention_knows_that_it_may_have_lost(raised_h: int) -> None:
    """Also when the retention is lengthened then, too late."""

    async def history() -> None:
        world = kept_world()

        def away(_: object) -> None:
            raise TransientError("the peer is away")

        world.peer.fault = away
        worker = Worker(world, "a", LinkSettings(open_spans_max=1, span_records_max=5))
        for count in (20, 5):  # of which the last are never read: nobody has room for them
            world.write(count)
            await asyncio.sleep(60)
        await asyncio.sleep(LONGER_S)
        lengthen(world, raised_h)
        world.write(30)
        await asyncio.sleep(60)
        with capture_logs() as told:
            world.peer.fault = None
            await asyncio.sleep(600)
        assert len(world.stored()) == 50
        assert worker.status()["counts"][PERHAPS] == 1
        assert len(named(told, "shard.may_have_lost")) == 1
        await worker.kill()

    in_virtual_time(history())


def test_losses_that_follow_each_other_are_all_counted_and_said_once_a_minute() -> None:
    async def history() -> None:
        world = kept_world()
        worker = Worker(world, "a", LinkSettings())
        await worker.kill()
        losses = Losses(
            link=worker.link,
            shard=FIRST,
            source=Watched(world.source),
            log=None,  # type: ignore[arg-type] - nothing is read
            start=None,  # type: ignore[arg-type]
            retention=await retention_of(world),
            clock=world,
        )
        said = []
        for _ in range(3):
            with capture_logs() as told:
                losses.begun(Checkpoint(TrimHorizon(), world.now_ms() - 3_600_000), TrimHorizon())
            said.append(len(told))
            await asyncio.sleep(40)
        assert said == [1, 0, 1]
        assert worker.link.counts[PERHAPS] == 3

    in_virtual_time(history())


def test_a_question_about_a_position_that_is_lost_by_now_is_no_second_loss() -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        source = Watched(world.source)
        source.is_gone_when_asked = True
        worker = Worker(world, "b", LinkSettings(), source=source)
        await asyncio.sleep(600)
        assert source.asked == 1
        assert PERHAPS not in worker.status()["counts"]
        await worker.kill()

    in_virtual_time(history())


def test_a_shard_that_is_quiet_for_days_costs_no_question_and_no_alarm() -> None:
    async def history() -> None:
        world = kept_world()
        source = Watched(world.source)
        worker = Worker(world, "a", LinkSettings(), source=source)
        world.write(20)
        await until(lambda: len(world.stored()) == 20)
        for _ in range(3):
            await asyncio.sleep(LONGER_S)
            world.write(1)
            await asyncio.sleep(60)
        assert len(world.stored()) == 23
        assert source.asked == 0
        assert PERHAPS not in worker.status()["counts"]
        await worker.kill()

    in_virtual_time(history())


def test_the_source_is_asked_once_when_a_link_begins_and_not_on_its_way() -> None:
    async def history() -> None:
        world = kept_world()
        await stopped_after(world, 20)
        world.write(500)
        source = Watched(world.source)
        source.unanswered = 2
        worker = Worker(world, "b", LinkSettings(), source=source)
        await asyncio.sleep(600)
        for _ in range(100):
            world.write(10)
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        assert len(world.stored()) == 1520
        assert source.asked == 3
        assert PERHAPS not in worker.status()["counts"]
        await worker.kill()

    in_virtual_time(history())


def test_a_source_that_was_away_for_longer_than_its_retention_may_have_lost_what_was_written_meanwhile() -> None:
    async def history() -> None:
        world = kept_world()
        source = Watched(world.source)
        worker = Worker(world, "a", LinkSettings(), source=source)
        world.write(20)
        await until(lambda: len(world.stored()) == 20)
        await asyncio.sleep(60)
        source.is_away = True
        world.write(5)
        await asyncio.sleep(LOOKS_S + 600)
        source.is_away = False
        await asyncio.sleep(600)
        world.write(3)
        await asyncio.sleep(600)
        assert len(world.stored()) == 23
        assert worker.status()["counts"][PERHAPS] == 1
        await worker.kill()

    in_virtual_time(history())


def test_a_quiet_shard_that_is_split_ends_without_an_alarm() -> None:
    async def history() -> None:
        world = kept_world()
        worker = Worker(world, "a", LinkSettings())
        world.write(20)
        await until(lambda: len(world.stored()) == 20)
        await asyncio.sleep(LONGER_S)
        world.source.split(FIRST)
        world.write(5)
        await asyncio.sleep(600)
        assert len(world.stored()) == 25
        assert not [name for name in worker.status()["counts"] if name.startswith("retention_losses_total")]
        await worker.kill()

    in_virtual_time(history())
