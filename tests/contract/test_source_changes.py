"""What every source promises while its stream changes: iterators expire, shards close, streams are made anew."""

import pytest
from stream_faults import (
    FIRST,
    all_records,
    children_of,
    expire_iterators,
    first_page,
    recreate,
    throttle_next_read,
)
from streams import Stream, now_ms

from replicator.core.model import After, AtTimestamp, Position, SequenceNumber, ShardEnd, TrimHorizon
from replicator.errors import PositionLost, TransientError
from replicator.ports import Cursor, Page


def following(page: Page) -> Cursor:
    assert page.next is not None
    return page.next


def data_of(page: Page) -> list[bytes]:
    return [record.data for record in page.records]


def put(stream: Stream, *texts: bytes) -> None:
    for text in texts:
        stream.put("k", text)


async def test_a_stream_made_anew_is_another_incarnation(stream: Stream) -> None:
    first = await stream.source.describe()
    recreate(stream)
    assert int((await stream.source.describe()).incarnation) > int(first.incarnation)


@pytest.mark.parametrize("key", ["ключ", '"\\\n\x01', "😀" * 128, "k"])
async def test_any_key_comes_back_as_it_was(stream: Stream, key: str) -> None:
    stream.put(key, b"\x00\xff")
    [record] = (await first_page(stream)).records
    assert (record.data, record.partition_key) == (b"\x00\xff", key)


async def test_pages_follow_each_other_without_gap_or_repeat(stream: Stream) -> None:
    put(stream, b"0", b"1", b"2", b"3", b"4", b"5", b"6")
    page = await first_page(stream, records_max=3)
    pages = [data_of(page)]
    while page.behind_ms:
        assert following(page).position == After(page.records[-1].sequence)
        page = await stream.source.read(following(page), 3)
        pages.append(data_of(page))
    assert pages == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]


async def test_an_expired_iterator_is_renewed_at_the_exact_place(stream: Stream) -> None:
    put(stream, b"0", b"1", b"2", b"3")
    page = await first_page(stream, records_max=2)
    expire_iterators(stream)
    assert data_of(await stream.source.read(following(page), 100)) == [b"2", b"3"]


@pytest.mark.parametrize("position", [TrimHorizon(), AtTimestamp(now_ms() - 3_600_000)])
async def test_an_iterator_that_expired_before_any_record_starts_over(stream: Stream, position: Position) -> None:
    cursor = await stream.source.open(FIRST, position)
    put(stream, b"0", b"1")
    expire_iterators(stream)
    assert data_of(await stream.source.read(cursor, 100)) == [b"0", b"1"]


async def test_a_time_to_come_is_for_later(stream: Stream) -> None:
    with pytest.raises(TransientError):
        await stream.source.open(FIRST, AtTimestamp(now_ms() + 3_600_000))


async def test_sequence_numbers_have_56_digits_and_grow_along_a_lineage(stream: Stream) -> None:
    put(stream, b"0", b"1")
    stream.split(FIRST)
    put(stream, b"2", b"3")
    low, high = await children_of(stream, FIRST)
    stream.merge(low, high)
    put(stream, b"4", b"5")
    records = await all_records(stream)
    assert [record.data for record in records] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    sequences = [record.sequence for record in records]
    assert sequences == sorted(set(sequences))
    assert {len(str(sequence)) for sequence in sequences} == {56}


async def test_a_cursor_at_the_tip_sees_that_the_shard_ended(stream: Stream) -> None:
    put(stream, b"0")
    page = await first_page(stream)
    stream.split(FIRST)
    assert await stream.source.read(following(page), 100) == Page((), None, 0)


async def test_nothing_is_behind_the_end_of_a_shard(stream: Stream) -> None:
    put(stream, b"0")
    cursor = await stream.source.open(FIRST, ShardEnd())
    assert await stream.source.read(cursor, 100) == Page((), None, 0)


async def test_a_number_of_another_shard_or_incarnation_is_lost(stream: Stream) -> None:
    put(stream, b"0")
    [record] = await all_records(stream)
    stream.split(FIRST)
    child = (await children_of(stream, FIRST))[0]
    with pytest.raises(PositionLost):
        await stream.source.open(child, After(record.sequence))
    recreate(stream)
    with pytest.raises(PositionLost):
        await stream.source.open(FIRST, After(record.sequence))


async def test_a_number_that_was_not_given_out_yet_is_lost(stream: Stream) -> None:
    put(stream, b"0")
    [record] = await all_records(stream)
    with pytest.raises(PositionLost):
        await stream.source.open(FIRST, After(SequenceNumber(record.sequence * 2)))


async def test_a_cursor_into_a_deleted_stream_is_lost_once_it_has_read_something(stream: Stream) -> None:
    put(stream, b"0")
    unread = await stream.source.open(FIRST, TrimHorizon())
    page = await stream.source.read(unread, 100)
    recreate(stream)
    with pytest.raises(PositionLost):
        await stream.source.read(following(page), 100)
    put(stream, b"9")
    assert data_of(await stream.source.read(unread, 100)) == [b"9"]


async def test_a_shard_that_is_no_longer_listed_is_lost(stream: Stream) -> None:
    put(stream, b"0")
    stream.split(FIRST)
    child = (await children_of(stream, FIRST))[0]
    cursor = await stream.source.open(child, TrimHorizon())
    recreate(stream)
    with pytest.raises(PositionLost):
        await stream.source.open(child, TrimHorizon())
    with pytest.raises(PositionLost):
        await stream.source.is_kept(child, After(SequenceNumber(7)))
    with pytest.raises(PositionLost):
        await stream.source.read(cursor, 100)


async def test_a_throttled_read_had_no_effect_and_can_be_repeated(stream: Stream) -> None:
    put(stream, b"0", b"1")
    cursor = await stream.source.open(FIRST, TrimHorizon())
    throttle_next_read(stream)
    with pytest.raises(TransientError) as throttled:
        await stream.source.read(cursor, 100)
    assert throttled.value.code == "throttled"
    assert data_of(await stream.source.read(cursor, 100)) == [b"0", b"1"]
