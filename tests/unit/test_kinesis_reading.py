"""Reading a stream back: what stops it, when it ends, and how often it asks."""

import asyncio

import pytest
from small_world import in_virtual_time

from replicator.aws.kinesis_api import GetRecordsReply, RecordReply
from replicator.aws.kinesis_reading import SHARDS_KEPT, Bounds, Pace, Reading, Wanted
from replicator.bootstrap_sinks import Paces
from replicator.core.model import Position, Region, Shard, ShardId
from replicator.errors import TransientError


class FailsWhenCancelled:
    """A stream whose only page never comes, and whose request ends in an error of its own when it is cancelled."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def shards(self) -> list[Shard]:
        return [Shard(ShardId("s"))]

    async def iterator(self, shard: ShardId, position: Position) -> str:
        return "token"

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        self.is_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TransientError("connection closed", code="no_answer") from None
        raise AssertionError


async def test_a_cancellation_that_meets_an_error_is_not_lost() -> None:
    api = FailsWhenCancelled()
    bounds = Bounds(100, 100, 60.0)
    reading = Reading(api, Wanted(0), lambda _: None, bounds, Pace(0.0))  # type: ignore[arg-type] - as much as is used
    task = asyncio.ensure_future(reading.run())
    await api.is_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class NeverEnds:
    """A busy shard: every page has a record a second younger than the last one, and the tip is never reached."""

    def __init__(self) -> None:
        self.pages_s: list[float] = []

    async def shards(self) -> list[Shard]:
        return [Shard(ShardId("s"))]

    async def iterator(self, shard: ShardId, position: Position) -> str:
        return "token"

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        self.pages_s.append(asyncio.get_running_loop().time())
        return GetRecordsReply([RecordReply("1", "", "k", len(self.pages_s))], "token", 1)


def reading(api: NeverEnds, pace: Pace, *, until_ms: int | None = None, bounds: Bounds | None = None) -> Reading:
    wanted = Wanted(0, until_ms)
    return Reading(api, wanted, lambda _: None, bounds or Bounds(100, 100, 60.0), pace)  # type: ignore[arg-type] - as much as is used


def test_a_busy_shard_is_read_until_it_shows_an_arrival_behind_the_time_of_interest() -> None:
    async def history() -> None:
        api = NeverEnds()
        found = await reading(api, Pace(1.0), until_ms=5000).run()
        assert (found.is_complete, found.records_read) == (True, 6)

    in_virtual_time(history())


def test_a_shard_is_read_once_a_second_by_all_readings_together() -> None:
    async def history() -> None:
        api, pace = NeverEnds(), Pace(1.0)
        await asyncio.gather(*[reading(api, pace, until_ms=20_000).run() for _ in range(3)])
        gaps_s = [after - before for before, after in zip(api.pages_s, api.pages_s[1:], strict=False)]
        assert min(gaps_s) >= 1.0

    in_virtual_time(history())


def test_links_that_write_one_stream_of_a_peer_share_its_pace() -> None:
    paces, peer = Paces(1.0), Region("eu-west-1")
    assert paces.of(peer, "hub") is paces.of(peer, "hub")
    assert len({id(paces.of(*one)) for one in ((peer, "hub"), (peer, "audit"), (Region("us-east-1"), "hub"))}) == 3


class Counted(str):
    """A shard's id that counts how often it is looked up or kept."""

    __slots__ = ()
    hashed = 0

    def __hash__(self) -> int:
        Counted.hashed += 1
        return super().__hash__()


def test_a_turn_costs_the_same_however_many_shards_are_read_at_once() -> None:
    turns = 4000

    async def history() -> None:
        pace = Pace(1.0)
        Counted.hashed = 0
        await asyncio.gather(*[pace.turn(ShardId(Counted(number))) for number in range(turns)])
        assert Counted.hashed <= 6 * turns

    in_virtual_time(history())


def test_shards_of_the_past_are_forgotten() -> None:
    async def history() -> None:
        pace = Pace(1.0)
        for number in range(10 * SHARDS_KEPT):
            await pace.turn(ShardId(str(number)))
            assert len(pace._next_s) <= SHARDS_KEPT
            await asyncio.sleep(1.0)

    in_virtual_time(history())


def test_a_reading_that_takes_too_long_is_no_proof_and_says_so() -> None:
    async def history() -> None:
        found = await reading(NeverEnds(), Pace(1.0), bounds=Bounds(100, 100, 7.0)).run()
        assert not found.is_complete
        assert "7 s" in found.why

    in_virtual_time(history())
