"""What every sink promises at its limits, and what reading back finds while the stream changes."""

from collections.abc import Callable

import pytest
from stream_faults import FIRST, all_records, children_of, numbered
from streams import Stream

from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import InDoubt, Refused
from replicator.ports import NOT_KEPT, Entry, SinkLimits

MANY = 10_000


def origin_of(data: bytes) -> Origin | None:
    """Of numbered events; others are of no interest."""
    if not data.isdigit():
        return None
    return Origin(Region("eu-west-1"), SourceName("orders"), "1", ShardId("s"), SequenceNumber(int(data)))


def origins(*numbers: int) -> set[Origin | None]:
    return {origin_of(b"%d" % number) for number in numbers}


async def new_time(stream: Stream) -> int:
    """An arrival time that nothing stored so far reaches, but a marker that was stored just now."""
    stream.put("marker", b"marker")
    first_ms = max(record.arrival_ms for record in await all_records(stream))
    while True:
        stream.put("marker", b"marker")
        newest_ms = max(record.arrival_ms for record in await all_records(stream))
        if newest_ms > first_ms:
            return newest_ms


async def test_a_full_request_is_stored(stream: Stream) -> None:
    entries = numbered(stream.sink.limits.records_max)
    assert list(await stream.sink.put(entries)) == [None] * len(entries)
    assert sorted(record.data for record in await all_records(stream)) == sorted(entry.data for entry in entries)


BREACHES: dict[str, Callable[[SinkLimits], list[Entry]]] = {
    "record": lambda limits: [Entry(b"x" * limits.record_bytes_max, "k")],
    "request": lambda limits: [Entry(b"x" * (limits.request_bytes_max // 10), "k")] * 11,
    "count": lambda limits: [Entry(b"x", "k")] * (limits.records_max + 1),
    "no key": lambda limits: [Entry(b"x", "")],
    "long key": lambda limits: [Entry(b"x", "k" * 257)],
    "nothing": lambda limits: [],
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_what_breaks_a_limit_is_refused_and_not_stored(stream: Stream, breach: str) -> None:
    with pytest.raises(Refused):
        await stream.sink.put(BREACHES[breach](stream.sink.limits))
    assert await all_records(stream) == []


async def test_records_and_requests_of_just_the_limit_pass(stream: Stream) -> None:
    limits = stream.sink.limits
    largest = Entry(b"x" * (limits.record_bytes_max - 1), "k")
    count = limits.request_bytes_max // limits.record_bytes_max
    assert list(await stream.sink.put([largest] * count)) == [None] * count


async def test_reading_back_finds_what_a_lost_answer_left(stream: Stream) -> None:
    since_ms = await new_time(stream)
    stream.fault("drop_after")
    with pytest.raises(InDoubt):
        await stream.sink.put(numbered(2))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=MANY)
    assert (found.origins, found.is_complete) == (origins(0, 1), True)


async def test_reading_back_leaves_out_what_arrived_before(stream: Stream) -> None:
    await stream.sink.put(numbered(3))
    since_ms = await new_time(stream)
    await stream.sink.put(numbered(4, start=3))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=MANY)
    assert (found.origins, found.is_complete) == (origins(3, 4, 5, 6), True)


async def test_reading_back_goes_through_a_split_and_a_merge(stream: Stream) -> None:
    await stream.sink.put(numbered(2))
    since_ms = await new_time(stream)
    await stream.sink.put(numbered(10, start=10))
    stream.split(FIRST)
    await stream.sink.put(numbered(10, start=20))
    low, high = await children_of(stream, FIRST)
    stream.merge(low, high)
    await stream.sink.put(numbered(10, start=30))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=MANY)
    assert (found.origins, found.is_complete) == (origins(*range(10, 40)), True)


async def test_reading_back_follows_a_split_that_happens_meanwhile(stream: Stream) -> None:
    since_ms = await new_time(stream)
    stream.put("k", b"0")
    has_split = False

    def split_at_first_sight(data: bytes) -> Origin | None:
        nonlocal has_split
        if data == b"0" and not has_split:
            has_split = True
            stream.split(FIRST)
            stream.put("k", b"1")
        return origin_of(data)

    found = await stream.sink.read_back(since_ms, split_at_first_sight, records_max=MANY)
    assert (found.origins, found.is_complete) == (origins(0, 1), True)


async def test_a_bound_that_is_just_reached_is_complete_and_one_less_is_not(stream: Stream) -> None:
    since_ms = await new_time(stream)
    await stream.sink.put(numbered(20))
    everything = await stream.sink.read_back(since_ms, origin_of, records_max=MANY)
    exact = await stream.sink.read_back(since_ms, origin_of, records_max=everything.records_read)
    cut = await stream.sink.read_back(since_ms, origin_of, records_max=everything.records_read - 1)
    assert (everything.is_complete, exact.is_complete, cut.is_complete) == (True, True, False)
    assert exact.origins == everything.origins == origins(*range(20))
    assert cut.records_read == everything.records_read - 1


async def test_a_bound_of_bytes_is_met_as_one_of_records_is(stream: Stream) -> None:
    since_ms = await new_time(stream)
    await stream.sink.put([Entry(b"%d" % number, "k") for number in range(100, 105)])
    cut = await stream.sink.read_back(since_ms, origin_of, records_max=MANY, bytes_max=1)
    whole = await stream.sink.read_back(since_ms, origin_of, records_max=MANY, bytes_max=10**6)
    assert whole.is_complete
    assert whole.origins == origins(*range(100, 105))
    # What comes in one page is taken in as a whole.
    assert cut.is_complete == (cut.origins == whole.origins)
    assert cut.is_complete or cut.why


@pytest.mark.shards(4)
async def test_only_shards_that_could_hold_the_keys_are_read_also_behind_a_reshard(stream: Stream) -> None:
    since_ms = await new_time(stream)
    shards = [shard.id for shard in await stream.source.shards()]
    await stream.sink.put(numbered(40))
    stream.split(shards[0])
    stream.merge(shards[2], shards[3])
    await stream.sink.put(numbered(40, start=100))
    for number in (3, 7, 11):
        look = {"records_max": MANY, "keys": {f"key-{number}", f"key-{number + 100}"}}
        found = await stream.sink.read_back(since_ms, origin_of, **look)
        assert found.is_complete
        assert found.origins >= origins(number, number + 100)
        assert found.records_read < 80
    everything = await stream.sink.read_back(since_ms, origin_of, records_max=MANY)
    assert everything.origins == origins(*range(40), *range(100, 140))


async def test_reading_for_no_key_reads_nothing(stream: Stream) -> None:
    since_ms = await new_time(stream)
    await stream.sink.put(numbered(3))
    found = await stream.sink.read_back(since_ms, origin_of, records_max=MANY, keys=())
    assert (found.is_complete, found.records_read) == (True, 0)


async def test_what_is_older_than_the_peer_keeps_is_no_proof(stream: Stream) -> None:
    await stream.sink.put(numbered(2))
    day_ms = 24 * 3_600_000
    now_ms = (await stream.sink.peer_time()).latest_ms
    found = await stream.sink.read_back(now_ms - day_ms - 60_000, origin_of, records_max=MANY)
    assert (found.is_complete, found.why) == (False, NOT_KEPT)
    assert found.origins == origins(0, 1)
    assert (await stream.sink.read_back(now_ms - day_ms + 60_000, origin_of, records_max=MANY)).is_complete
