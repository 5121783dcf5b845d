"""A link that fell past its source's retention goes on from the lake: everything once, in order, and it says so."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Collection

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from small_world import HERE, LIMITS, LINK, PEER, SOURCE, Worker, World, in_virtual_time, until
from structlog.testing import capture_logs
from test_lost_position import FIRST, GONE, HOUR_S, LONGER_S, PERHAPS, kept_world, lengthen, named

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_lake import MemoryLake
from replicator.adapters.memory_stream import MemorySource
from replicator.core.lake import LAKE, Archived, encode_line, events_of
from replicator.core.model import (
    After,
    AtTimestamp,
    Checkpoint,
    LinkName,
    Origin,
    Position,
    SequenceNumber,
    ShardEnd,
    ShardId,
    TrimHorizon,
)
from replicator.errors import PositionLost, TransientError
from replicator.ports import ClaimScope, ClaimSession, Cursor, Entry, Page
from replicator.worker.continued import ContinuedSource, Readings, owed
from replicator.worker.lake_shard import HubLake, ShardInLake
from replicator.worker.link import LinkSettings
from replicator.worker.retention import Retention

INTO_LAKE = LinkName(f"{SOURCE}:{LAKE}")
FROM_LAKE = "events_from_lake_total"
NARROW = LinkSettings(open_spans_max=2, span_records_max=5)
RETENTION_MS = HOUR_S * 1000
COUNT = 20


def away(_: object) -> None:
    raise TransientError("the peer is away")


def a_lake() -> MemoryLake:
    return MemoryLake(SOURCE, LIMITS)


async def archived(world: World, lake: MemoryLake) -> None:
    """Everything is, and the checkpoint says so."""
    await until(lambda: _archived(lake) == set(range(world.written)))
    await asyncio.sleep(30)


def _archived(lake: MemoryLake) -> set[int]:
    return {json.loads(event.data)["n"] for body in lake.objects.values() for event in events_of(body)}


def is_in_order(world: World) -> bool:
    """Whether the peer holds the events of each key as they were written."""
    of_key: dict[str, list[int]] = defaultdict(list)
    for shard in world.peer.list_shards():
        for record in world.peer.records(shard.id):
            of_key[record.partition_key].append(json.loads(record.data)["n"])
    return all(numbers == sorted(numbers) for numbers in of_key.values())


def latest(world: World) -> Position:
    return AtTimestamp(world.now_ms())


def oldest(_: World) -> Position:
    return TrimHorizon()


async def fallen_behind(
    world: World, lake: MemoryLake, *, first: int = 20, start: Callable[[World], Position] = oldest
) -> None:
    """Events arrive; then the peer is away for longer than the source keeps 60 more, and the worker dies."""
    worker = Worker(world, "a", NARROW, lake=lake, start=start(world))
    world.write(first, keys=10)
    await until(lambda: len(world.stored()) == first)
    await asyncio.sleep(60)
    world.peer.fault = away
    for _ in range(6):
        world.write(10, keys=10)
        await asyncio.sleep(60)
    await asyncio.sleep(LONGER_S)
    world.write(10, keys=10)
    await archived(world, lake)
    await worker.kill()


def test_what_was_trimmed_comes_from_the_lake_and_what_is_kept_from_the_stream_once_and_in_order() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.write(30, keys=10)
        world.peer.fault = None
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings(), lake=lake)
            await until(lambda: len(world.stored()) == 120)
            await asyncio.sleep(60)
        assert world.stored() == world.once_each()
        assert is_in_order(world)
        status = worker.status()
        assert 70 <= status["counts"][FROM_LAKE] <= 100
        assert PERHAPS not in status["counts"]
        assert "from_lake" not in status["shards"][FIRST]
        [begun], [left] = named(told, "shard.reads_lake"), named(told, "shard.left_lake")
        assert (begun["link"], left["link"]) == (LINK, LINK)
        assert (left["begin"], left["events"]) == (begun["position"], status["counts"][FROM_LAKE])
        assert not named(told, "shard.may_have_lost")
        await worker.kill()

    in_virtual_time(history())


@pytest.mark.parametrize(("start", "raised_h"), [(oldest, 1), (latest, 1), (latest, 7)])
def test_a_link_that_had_delivered_nothing_yet_gets_everything_from_the_lake(
    start: Callable[[World], Position], raised_h: int
) -> None:
    """Also when the retention was lengthened too late, while no worker ran."""

    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake, first=0, start=start)
        lengthen(world, raised_h)
        world.peer.fault = None
        worker = Worker(world, "b", LinkSettings(), lake=lake)
        await until(lambda: len(world.stored()) == 70)
        await asyncio.sleep(60)
        assert world.stored() == world.once_each()
        assert is_in_order(world)
        assert PERHAPS not in worker.status()["counts"]
        await worker.kill()

    in_virtual_time(history())


def test_who_dies_while_reading_the_lake_is_followed_from_the_checkpoint_there() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.write(30, keys=10)
        allowed = 30

        def slow(entries: object) -> None:
            nonlocal allowed
            if allowed <= 0:
                raise TransientError("away again")
            allowed -= len(entries)  # type: ignore[arg-type]

        world.peer.fault = slow
        killed = Worker(world, "b", NARROW, lake=lake)
        await until(lambda: allowed <= 0)
        await asyncio.sleep(60)
        assert killed.status()["shards"][FIRST]["from_lake"]["events"] > 0
        await killed.kill()
        assert 20 < len(world.stored()) < 90
        world.peer.fault = None
        with capture_logs() as told:
            resumed = Worker(world, "c", LinkSettings(), lake=lake)
            await until(lambda: len(world.stored()) == 120)
            await asyncio.sleep(60)
        assert world.stored() == world.once_each()
        assert is_in_order(world)
        assert 0 < resumed.status()["counts"][FROM_LAKE] < 100
        assert len(named(told, "shard.reads_lake")) == 1
        await resumed.kill()

    in_virtual_time(history())


def test_shards_that_left_the_stream_are_finished_from_the_lake_parents_before_children() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        worker = Worker(world, "a", NARROW, lake=lake)
        world.write(20, keys=10)
        await until(lambda: len(world.stored()) == 20)
        await asyncio.sleep(60)
        world.peer.fault = away
        world.write(30, keys=10)
        left, right = world.source.split(FIRST)
        world.write(30, keys=10)
        await asyncio.sleep(120)
        world.source.merge(left, right)
        world.write(30, keys=10)
        await asyncio.sleep(LONGER_S)
        world.write(10, keys=10)
        await archived(world, lake)
        assert {shard.id for shard in world.source.list_shards()} == {"shardId-000000000003"}
        await worker.kill()
        world.write(10, keys=10)
        world.peer.fault = None
        last = Worker(world, "b", LinkSettings(), lake=lake)
        await until(lambda: len(world.stored()) == 130)
        await asyncio.sleep(HOUR_S // 2)
        assert world.stored() == world.once_each()
        assert is_in_order(world)
        counts = last.status()["counts"]
        assert GONE not in counts
        assert PERHAPS not in counts
        assert {row.shard for row in await world.leases.rows(SOURCE)} == {"shardId-000000000003"}
        await last.kill()

    in_virtual_time(history())


def test_a_hole_of_the_lake_is_counted_on_each_link_that_comes_to_it_and_the_rest_goes_on() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.write(5)  # while no worker runs
        await asyncio.sleep(LONGER_S)
        world.write(30, keys=10)
        world.peer.fault = None
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings(), lake=lake)
            await until(lambda: len(world.stored()) == 120)
            await asyncio.sleep(600)
        assert set(world.stored()) == set(range(90)) | set(range(95, 125))
        assert max(world.stored().values()) == 1
        assert is_in_order(world)
        assert worker.status()["counts"][PERHAPS] == 1
        assert worker.status(INTO_LAKE)["counts"][PERHAPS] == 1
        assert sorted(line["link"] for line in named(told, "shard.may_have_lost")) == sorted([LINK, INTO_LAKE])
        await worker.kill()

    in_virtual_time(history())


def test_a_lake_that_begins_behind_the_position_leaves_it_at_a_loss_that_is_counted() -> None:
    async def history() -> None:
        world = kept_world()
        worker = Worker(world, "a", LinkSettings())
        world.write(20)
        await until(lambda: len(world.stored()) == 20)
        await asyncio.sleep(60)
        await worker.kill()
        world.write(5)
        await asyncio.sleep(LONGER_S)
        world.write(30)
        late = Worker(world, "b", LinkSettings(), lake=a_lake())
        await until(lambda: len(world.stored()) == 50)
        await asyncio.sleep(60)
        assert late.status()["counts"][PERHAPS] == 1
        await late.kill()

    in_virtual_time(history())


@pytest.mark.parametrize(
    ("start", "delivered", "added_min", "back_min", "lost"),
    [
        (latest, 0, 50, 70, 10),  # The stream has what came in before the lake was there.
        (latest, 10, 50, 70, 10),
        (latest, 0, 50, 130, 20),  # Only the lake has what came in first when it was there.
        (latest, 10, 50, 130, 20),
        (oldest, 0, 80, 150, 10),  # The lake began with what the stream had then.
        (oldest, 10, 80, 150, 10),
    ],
)
def test_of_a_lake_that_was_added_later_nothing_is_passed_over_and_what_is_in_neither_is_counted_once(
    start: Callable[[World], Position], delivered: int, added_min: int, back_min: int, lost: int
) -> None:
    """The stream keeps an hour, and the peer is away."""

    async def history() -> None:
        world, lake = kept_world(), a_lake()
        begun_s = asyncio.get_running_loop().time()

        async def come(minute: int) -> None:
            await asyncio.sleep(begun_s + minute * 60 - asyncio.get_running_loop().time())

        first = Worker(world, "a", NARROW, start=start(world))
        world.write(delivered, keys=10)
        await until(lambda: len(world.stored()) == delivered)
        await come(2)
        world.peer.fault = away
        world.write(10, keys=10)
        await come(40)
        world.write(10, keys=10)
        await come(added_min)
        await first.kill()
        second = Worker(world, "b", NARROW, lake=lake, start=start(world))
        await come(added_min + 2)
        world.write(10, keys=10)
        await come(back_min - 2)
        world.write(10, keys=10)
        await come(back_min)
        await second.kill()
        world.peer.fault = None
        with capture_logs() as told:
            third = Worker(world, "c", LinkSettings(), lake=lake)
            await asyncio.sleep(600)
        counts = third.status()["counts"]
        await third.kill()
        assert set(world.stored()) == set(range(delivered)) | set(range(delivered + lost, world.written))
        assert max(world.stored().values()) == 1
        assert counts[PERHAPS] == len(named(told, "shard.may_have_lost")) == 1

    in_virtual_time(history())


class Waiting(MemoryClaims):
    """So long that the link into the lake, which claims nothing, has archived something before the other begins."""

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        await asyncio.sleep(60)
        return await super().attach(scope, epoch, attempt)


def test_a_link_that_had_only_tried_when_a_lake_came_with_the_worker_after_the_outage_is_counted_once() -> None:
    async def history() -> None:
        world = kept_world()
        first = Worker(world, "a", NARROW, start=latest(world))
        await asyncio.sleep(60)
        world.peer.fault = away
        world.write(10)
        await asyncio.sleep(60)
        await first.kill()
        await asyncio.sleep(LONGER_S)
        world.write(10)
        world.peer.fault = None
        world.claims = Waiting(world.now_ms)
        second = Worker(world, "b", LinkSettings(), lake=a_lake(), start=oldest(world))
        await asyncio.sleep(2 * HOUR_S)
        assert set(world.stored()) == set(range(10, 20))
        assert second.status()["counts"][PERHAPS] == 1
        await second.kill()

    in_virtual_time(history())


def test_a_lake_that_does_not_answer_holds_the_link_up_and_loses_nothing() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.peer.fault = None
        kept, lake.objects = lake.objects, {}
        lake.objects = {name: body[:-9] for name, body in kept.items()}
        worker = Worker(world, "b", LinkSettings(), lake=lake)
        await asyncio.sleep(600)
        assert len(world.stored()) == 20
        lake.objects = kept | {name: body for name, body in lake.objects.items() if name not in kept}
        await until(lambda: len(world.stored()) == 90)
        assert world.stored() == world.once_each()
        await worker.kill()

    in_virtual_time(history())


# --- page by page --------------------------------------------------------------------------------------------------


class Shelf:
    """A shard of a stream and a lake under it, as a reader of both sees them. Events are numbered from 1."""

    def __init__(self, count: int, *, archived: int, stored: Collection[int] = (), packed: int = 1) -> None:
        """``archived``: the watermark of the lake; ``stored``: what it has beyond. ``packed``: events in a number."""
        self.world = kept_world()
        self.lake = MemoryLake(SOURCE, LIMITS)
        self.world.write(count)
        self.sequences = [record.sequence for record in self.world.source.records(FIRST)]
        self.watermark: Position | None = After(self.sequences[archived - 1]) if archived else None
        self.retention = Retention(self.world.leases, SOURCE, self.world)
        self.continued = self.reader()
        self.lake_from_ms: int | None = 0
        self.in_lake = [*range(1, archived + 1), *stored]
        self._packed = packed

    def reader(self) -> ContinuedSource:
        hub_lake = HubLake(self.lake, SOURCE, (HERE, PEER))
        return ContinuedSource(
            MemorySource(self.world.source),
            ShardInLake(hub_lake, str(self.world.source.created_ms), FIRST, World.now_ms),
            Readings(),
            archived=lambda: self.watermark,
            archived_from=self.archived_from,
            retention=self.retention,
            clock=self.world,
        )

    async def archived_from(self) -> int | None:
        return self.lake_from_ms

    async def fill(self) -> None:
        """Three events an object, every fifth born elsewhere."""
        await self.retention.note(RETENTION_MS)
        for begin in range(0, len(self.in_lake), 3):
            numbers = self.in_lake[begin : begin + 3]
            await self.lake.put([entry for number in numbers for entry in self._lines(number)])

    def _lines(self, number: int) -> list[Entry]:
        incarnation, sequence = str(self.world.source.created_ms), self.sequences[number - 1]
        region = PEER if number % 5 == 0 else HERE
        lines = [
            encode_line(
                Archived(
                    Origin(region, SOURCE, incarnation, FIRST, sequence, sub),
                    f"e{number}",
                    (),
                    World.now_ms(),
                    incarnation,
                    FIRST,
                    sequence,
                    sub,
                    "k",
                    b'{"n":%d}' % (number - 1),
                )
            )
            for sub in range(self._packed)
        ]
        return [Entry(line, "k") for line in lines]

    def number(self, page: Page) -> list[int]:
        return [json.loads(record.data)["n"] + 1 for record in page.records]

    async def numbers(self, position: Position, records_max: int = 4) -> list[int]:
        """All that follows the position, up to the tip or the end."""
        cursor: Cursor | None = await self.continued.open(FIRST, position)
        found: list[int] = []
        while cursor is not None:
            page = await self.continued.read(cursor, records_max)
            found += self.number(page)
            assert page.next is None or not page.records or page.next.position == After(page.records[-1].sequence)
            if not page.records and page.behind_ms == 0:
                break
            cursor = page.next
        return found


@given(
    place=st.integers(1, 8),
    trimmed=st.integers(0, COUNT),
    archived=st.integers(0, COUNT),
    beyond=st.sets(st.integers(1, COUNT)),
    records_max=st.integers(1, 7),
)
@example(place=1, trimmed=10, archived=5, beyond={7}, records_max=4)
@example(place=1, trimmed=COUNT, archived=COUNT, beyond=set(), records_max=4)
def test_lake_and_stream_together_give_what_one_of_them_has_once_in_order_and_a_hole_is_known(
    place: int, trimmed: int, archived: int, beyond: set[int], records_max: int
) -> None:
    """``beyond``: what a dead owner stored behind the lake's watermark."""

    async def history() -> None:
        shelf = Shelf(COUNT, archived=archived, stored=sorted(number for number in beyond if number > archived))
        await shelf.fill()
        shelf.world.source.trim(FIRST, trimmed)
        begin = After(shelf.sequences[place - 1])
        found = await shelf.numbers(begin, records_max)
        assert found == [n for n in range(place + 1, COUNT + 1) if n <= archived or n > trimmed]
        # That the record at the position is trimmed is all there is to know of what followed it.
        mark = max(place, archived)
        is_known = any(shelf.continued.has_hole(After(number)) for number in shelf.sequences[place - 1 :])
        assert is_known == (mark <= trimmed)

    in_virtual_time(history())


def test_records_trimmed_between_two_reads_come_from_the_lake() -> None:
    async def history() -> None:
        shelf = Shelf(20, archived=15)
        await shelf.fill()
        cursor = await shelf.continued.open(FIRST, After(shelf.sequences[0]))
        first = await shelf.continued.read(cursor, 4)
        await asyncio.sleep(LONGER_S)
        assert first.next is not None
        found = shelf.number(first)
        shelf.watermark = After(shelf.sequences[14])
        found += await shelf.numbers(first.next.position)
        cursor = first.next
        turned = await shelf.continued.read(cursor, 4)
        assert turned.records == ()
        assert turned.next is not None
        again = await shelf.continued.read(turned.next, 4)
        assert again.is_from_lake
        assert shelf.number(again) == [6, 7, 8, 9]
        assert found == list(range(2, 16))

    in_virtual_time(history())


def test_what_was_archived_while_the_lake_is_read_is_read_there_too() -> None:
    async def history() -> None:
        shelf = Shelf(COUNT, archived=COUNT)
        await shelf.fill()
        shelf.world.source.trim(FIRST, COUNT - 1)
        shelf.watermark = After(shelf.sequences[9])
        cursor = await shelf.continued.open(FIRST, After(shelf.sequences[0]))
        found: list[int] = []
        for _ in range(12):
            page = await shelf.continued.read(cursor, 4)
            found += shelf.number(page)
            assert page.next is not None
            cursor = page.next
            if len(found) > 5:
                shelf.watermark = After(shelf.sequences[COUNT - 1])
        assert found == list(range(2, COUNT + 1))
        assert not any(shelf.continued.has_hole(After(sequence)) for sequence in shelf.sequences)

    in_virtual_time(history())


@pytest.mark.parametrize("is_known", [True, False])
def test_a_stream_that_keeps_more_than_it_is_trusted_with_is_not_left_for_a_lake_that_began_later(
    *, is_known: bool
) -> None:
    """``is_known``: when that was."""

    async def history() -> None:
        shelf = Shelf(COUNT, archived=COUNT)
        shelf.in_lake = list(range(15, COUNT + 1))
        await shelf.fill()
        shelf.world.source.trim(FIRST, 5)
        shelf.world.source.retention_ms = 7 * RETENTION_MS
        await asyncio.sleep(1)
        shelf.lake_from_ms = World.now_ms() if is_known else None
        await asyncio.sleep(LONGER_S)
        begin = After(shelf.sequences[0])
        assert await shelf.numbers(begin) == list(range(6 if is_known else 15, COUNT + 1))
        assert shelf.continued.has_hole(begin)

    in_virtual_time(history())


@pytest.mark.parametrize("records_max", [1, 2, 5])
def test_a_page_of_the_lake_ends_with_a_whole_record(records_max: int) -> None:
    async def history() -> None:
        shelf = Shelf(6, archived=6, packed=3)
        await shelf.fill()
        shelf.world.source.trim(FIRST, 6)
        cursor: Cursor | None = await shelf.continued.open(FIRST, After(shelf.sequences[0]))
        places = []
        for _ in range(20):
            assert cursor is not None
            page = await shelf.continued.read(cursor, records_max)
            places += [(record.sequence, record.sub_sequence) for record in page.records]
            assert not page.records or page.records[-1].sub_sequence == 2
            cursor = page.next
        assert places == [(sequence, sub) for sequence in shelf.sequences[1:] for sub in range(3)]

    in_virtual_time(history())


def test_a_lake_that_is_done_with_a_shard_that_is_gone_tells_its_end() -> None:
    async def history() -> None:
        shelf = Shelf(8, archived=8)
        await shelf.fill()
        shelf.world.source.split(FIRST)
        await asyncio.sleep(LONGER_S)
        begin = After(shelf.sequences[1])
        with pytest.raises(PositionLost, match="no longer has the shard"):
            await shelf.numbers(begin)
        shelf.watermark = ShardEnd()
        assert await shelf.numbers(begin) == [3, 4, 5, 6, 7, 8]
        assert await shelf.numbers(TrimHorizon()) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert not shelf.continued.has_hole(After(shelf.sequences[7]))

    in_virtual_time(history())


def test_a_number_that_the_shard_never_had_is_no_matter_for_the_lake() -> None:
    async def history() -> None:
        shelf = Shelf(8, archived=8)
        await shelf.fill()
        with pytest.raises(PositionLost, match="never had"):
            await shelf.continued.open(FIRST, After(SequenceNumber(7)))

    in_virtual_time(history())


def test_readers_beyond_the_bound_are_opened_anew_and_none_misses_anything() -> None:
    async def history() -> None:
        shelf = Shelf(24, archived=24)
        await shelf.fill()
        shelf.world.source.trim(FIRST, 23)
        cursors = [await shelf.continued.open(FIRST, After(shelf.sequences[place])) for place in range(12)]
        found: list[list[int]] = [[] for _ in cursors]
        for _ in range(30):
            for number, cursor in enumerate(cursors):
                page = await shelf.continued.read(cursor, 2)
                found[number] += shelf.number(page)
                assert page.next is not None
                cursors[number] = page.next
        assert found == [list(range(place + 2, 25)) for place in range(12)]

    in_virtual_time(history())


def test_a_link_from_the_oldest_record_is_owed_what_was_there_when_it_tried_and_a_child_of_what_it_did_whole() -> None:
    day_ms = 24 * RETENTION_MS
    tried = Checkpoint(TrimHorizon(), 10 * day_ms)
    assert owed(tried, retention_ms=day_ms, is_child=True, now_ms=0).position == AtTimestamp(9 * day_ms)
    new = Checkpoint(TrimHorizon())
    assert owed(new, retention_ms=day_ms, is_child=False, now_ms=0) == new
    assert owed(new, retention_ms=day_ms, is_child=True, now_ms=400 * day_ms).position == AtTimestamp(34 * day_ms)
    known = Checkpoint(After(SequenceNumber(5)), 10 * day_ms)
    assert owed(known, retention_ms=day_ms, is_child=True, now_ms=0) == known


@pytest.mark.parametrize("is_away_at_first", [True, False])
def test_a_shard_that_left_before_the_lake_had_it_is_counted_on_each_link(is_away_at_first: bool) -> None:
    """The link into the lake gives the shard up at its end, which is no end of what the lake has."""

    async def history() -> None:
        world, lake = kept_world(), a_lake()
        worker = Worker(world, "a", NARROW, lake=lake)
        world.write(20, keys=10)
        await until(lambda: len(world.stored()) == 20)
        await asyncio.sleep(60)
        world.peer.fault = away
        world.write(30, keys=10)
        await archived(world, lake)
        await worker.kill()
        world.write(5)  # Nobody reads them.
        world.source.split(FIRST)
        await asyncio.sleep(LONGER_S)
        world.write(10, keys=10)
        if not is_away_at_first:
            world.peer.fault = None
        last = Worker(world, "b", LinkSettings(), lake=lake)
        if is_away_at_first:
            await asyncio.sleep(300)
            world.peer.fault = None
        await until(lambda: len(world.stored()) == 60)
        await asyncio.sleep(300)
        into_lake, counts = last.status(INTO_LAKE)["counts"], last.status()["counts"]
        await last.kill()
        assert set(world.stored()) == {*range(50), *range(55, 65)}
        assert into_lake[GONE] == 1
        assert counts.get(GONE, 0) + counts.get(PERHAPS, 0) >= 1

    in_virtual_time(history())


class Sparse(MemorySource):
    """As Kinesis does, its iterators give empty pages before they come to what follows."""

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        cursor = await super().open(shard, position)
        return replace(cursor, token=f"2 {cursor.token}")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        left, _, token = cursor.token.partition(" ")
        if left != "0":
            return Page((), replace(cursor, token=f"{int(left) - 1} {token}"), 60_000)
        page = await super().read(replace(cursor, token=token), records_max)
        return replace(page, next=page.next and replace(page.next, token=f"0 {page.next.token}"))


def test_empty_pages_on_the_way_back_into_the_stream_end() -> None:
    async def history() -> None:
        shelf = Shelf(20, archived=15)
        await shelf.fill()
        shelf.continued._source = Sparse(shelf.world.source)
        shelf.world.source.trim(FIRST, 12)
        cursor: Cursor | None = await shelf.continued.open(FIRST, After(shelf.sequences[0]))
        found: list[int] = []
        for _ in range(100):
            assert cursor is not None
            page = await shelf.continued.read(cursor, 4)
            found += shelf.number(page)
            cursor = page.next
        assert found == list(range(2, 21))

    in_virtual_time(history())


def test_a_link_that_came_to_the_tip_by_the_lake_alone_is_said_to_have_left_it() -> None:
    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.peer.fault = None
        with capture_logs() as told:
            worker = Worker(world, "b", LinkSettings(), lake=lake)
            await until(lambda: len(world.stored()) == 90)
            await asyncio.sleep(3600)
        status = worker.status()
        await worker.kill()
        assert status["lag_ms"] == 0
        assert "from_lake" not in status["shards"][FIRST]
        assert len(named(told, "shard.left_lake")) == 1

    in_virtual_time(history())


def test_a_link_that_can_not_read_the_lake_does_not_look_as_if_it_were_at_the_tip() -> None:
    """The shared reader is there, for the link into the lake."""

    async def history() -> None:
        world, lake = kept_world(), a_lake()
        await fallen_behind(world, lake)
        world.peer.fault = None
        lake.objects = {name: body[:-9] for name, body in lake.objects.items()}
        worker = Worker(world, "b", LinkSettings(), lake=lake)
        await asyncio.sleep(60)
        lag_ms = worker.status()["lag_ms"]
        await worker.kill()
        assert lag_ms is None or lag_ms > HOUR_S * 1000

    in_virtual_time(history())
