"""What every source promises: exact positions, order, honest ends."""

import time

import pytest
from streams import Stream

from replicator.core.model import After, AtTimestamp, Position, SequenceNumber, ShardId, TrimHorizon
from replicator.errors import PositionLost
from replicator.ports import Cursor, Page

FIRST = ShardId("shardId-000000000000")
SECOND = ShardId("shardId-000000000001")


async def read_all(stream: Stream, shard: ShardId, position: Position) -> tuple[list[bytes], Page]:
    """Everything from the position to the tip or the end, and the last page."""
    cursor: Cursor | None = await stream.source.open(shard, position)
    found: list[bytes] = []
    while cursor is not None:
        page = await stream.source.read(cursor, 3)
        found += [record.data for record in page.records]
        cursor = page.next
        if page.behind_ms == 0:
            break
    return found, page


async def sequences(stream: Stream, shard: ShardId) -> list[SequenceNumber]:
    page = await stream.source.read(await stream.source.open(shard, TrimHorizon()), 1000)
    return [record.sequence for record in page.records]


async def test_records_come_in_the_order_they_were_stored_with_growing_numbers(stream: Stream) -> None:
    for number in range(8):
        stream.put(f"k{number % 3}", str(number).encode())
    found, page = await read_all(stream, FIRST, TrimHorizon())
    assert found == [str(number).encode() for number in range(8)]
    numbers = await sequences(stream, FIRST)
    assert numbers == sorted(set(numbers))
    assert page.next is not None


async def test_after_a_number_comes_exactly_the_next_record(stream: Stream) -> None:
    for number in range(5):
        stream.put("k", str(number).encode())
    third = (await sequences(stream, FIRST))[2]
    assert (await read_all(stream, FIRST, After(third)))[0] == [b"3", b"4"]


async def test_a_time_gives_what_arrived_from_then_on(stream: Stream) -> None:
    stream.put("k", b"before")
    [before] = (await stream.source.read(await stream.source.open(FIRST, TrimHorizon()), 10)).records
    while time.time() * 1000 <= before.arrival_ms + 1:
        pass
    stream.put("k", b"after")
    assert (await read_all(stream, FIRST, AtTimestamp(before.arrival_ms + 1)))[0] == [b"after"]
    assert (await read_all(stream, FIRST, AtTimestamp(before.arrival_ms)))[0] == [b"before", b"after"]


async def test_an_empty_shard_gives_an_empty_page_at_the_tip_that_can_be_read_on(stream: Stream) -> None:
    cursor = await stream.source.open(FIRST, TrimHorizon())
    page = await stream.source.read(cursor, 10)
    assert page.records == ()
    assert page.behind_ms == 0
    assert page.next is not None
    assert page.next.position == TrimHorizon()
    stream.put("k", b"1")
    assert [record.data for record in (await stream.source.read(page.next, 10)).records] == [b"1"]


async def test_bytes_keys_and_arrival_come_through(stream: Stream) -> None:
    began_ms = int(time.time() * 1000)
    stream.put('schlüssel "1"', b"\x00\xff{}")
    [record] = (await stream.source.read(await stream.source.open(FIRST, TrimHorizon()), 10)).records
    assert (record.data, record.partition_key) == (b"\x00\xff{}", 'schlüssel "1"')
    assert began_ms - 1 <= record.arrival_ms <= time.time() * 1000 + 1


async def test_a_split_shard_ends_and_its_children_name_it(stream: Stream) -> None:
    stream.put("k", b"old")
    stream.split(FIRST)
    stream.put("k", b"new")
    found, page = await read_all(stream, FIRST, TrimHorizon())
    assert found == [b"old"]
    assert page.next is None
    children = [shard for shard in await stream.source.shards() if shard.id != FIRST]
    assert [child.parents for child in children] == [(FIRST,), (FIRST,)]
    found = [data for child in children for data in (await read_all(stream, child.id, TrimHorizon()))[0]]
    assert found == [b"new"]


@pytest.mark.shards(2)
async def test_a_merged_shard_names_both_parents(stream: Stream) -> None:
    stream.merge(FIRST, SECOND)
    [child] = [shard for shard in await stream.source.shards() if shard.parents]
    assert set(child.parents) == {FIRST, SECOND}


async def test_behind_the_last_record_of_a_closed_shard_is_the_end(stream: Stream) -> None:
    stream.put("k", b"1")
    [last] = await sequences(stream, FIRST)
    stream.split(FIRST)
    page = await stream.source.read(await stream.source.open(FIRST, After(last)), 10)
    assert (page.records, page.next) == ((), None)


async def test_what_was_trimmed_is_passed_over(stream: Stream) -> None:
    for number in range(4):
        stream.put("k", str(number).encode())
    numbers = await sequences(stream, FIRST)
    stream.trim(FIRST, numbers[1])
    assert (await read_all(stream, FIRST, TrimHorizon()))[0] == [b"2", b"3"]
    assert (await read_all(stream, FIRST, After(numbers[0])))[0] == [b"2", b"3"]


async def test_whether_a_record_is_kept_is_told_and_with_it_that_nothing_behind_it_was_trimmed(stream: Stream) -> None:
    for number in range(3):
        stream.put("k", str(number).encode())
    places = [After(number) for number in await sequences(stream, FIRST)]

    async def kept() -> list[bool]:
        return [await stream.source.is_kept(FIRST, place) for place in places]

    assert await kept() == [True, True, True]
    stream.trim(FIRST, places[0].sequence)
    assert await kept() == [False, True, True]
    stream.split(FIRST)
    assert await kept() == [False, True, True]
    stream.trim(FIRST, places[2].sequence)
    assert await kept() == [False, False, False]
    with pytest.raises(PositionLost):
        await stream.source.is_kept(FIRST, After(SequenceNumber(7)))


async def test_a_number_that_was_never_the_shards_is_a_lost_position(stream: Stream) -> None:
    with pytest.raises(PositionLost):
        await stream.source.open(FIRST, After(SequenceNumber(7)))


async def test_the_incarnation_is_the_creation_time(stream: Stream) -> None:
    info = await stream.source.describe()
    assert abs(int(info.incarnation) - time.time() * 1000) < 60_000
    assert info.retention_ms == 24 * 3_600_000
    assert (await stream.source.describe()) == info
