"""Sources unpack KPL aggregates; no page, window, batch or span ends inside one."""

import asyncio
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.core.kpl import UserRecord, pack
from replicator.core.lending import Memory
from replicator.core.model import (
    After,
    Position,
    Record,
    Region,
    ShardEnd,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.errors import TransientError
from replicator.ports import Cursor, Entry, Page
from replicator.worker.prepare import Birthplace, Prepared
from replicator.worker.shard_log import LogSettings, ShardLog
from replicator.worker.span import whole_end
from replicator.worker.unpacking import PAGE_EVENTS_MAX, UnpackedSource

SHARD = ShardId("shardId-000000000000")
BIRTHPLACE = Birthplace(Region("us-east-1"), SourceName("s"), "1", SHARD)


class Silent:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...
    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Asked(MemorySource):
    """Notes how many records were asked for."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream)
        self.asked: list[int] = []

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        self.asked.append(records_max)
        return await super().read(cursor, records_max)


def stream_of(sizes: Sequence[int]) -> MemoryStream:
    """Numbered events in records: 0 is a plain record with one, any other number an aggregate with so many."""
    stream = MemoryStream(lambda: 5)
    number = 0
    for size in sizes:
        users = [UserRecord(str(number + more).encode(), f"k{more % 3}") for more in range(max(1, size))]
        number += len(users)
        stream.store(Entry(pack(users), "outer") if size else Entry(users[0].data, users[0].partition_key))
    return stream


async def pages(source: UnpackedSource, records_max: int = 1000) -> list[Page]:
    cursor: Cursor | None = await source.open(SHARD, TrimHorizon())
    found = []
    while cursor is not None:
        page = await source.read(cursor, records_max)
        found.append(page)
        cursor = page.next
        if page.behind_ms == 0:
            break
    return found


async def test_events_come_with_their_own_key_data_and_number_in_the_record() -> None:
    [page] = await pages(UnpackedSource(MemorySource(stream_of([0, 3, 0]))))
    seen = [(record.data, record.partition_key, record.sub_sequence) for record in page.records]
    assert seen == [(b"0", "k0", 0), (b"1", "k0", 0), (b"2", "k1", 1), (b"3", "k2", 2), (b"4", "k0", 0)]
    assert len({record.sequence for record in page.records}) == 3


async def test_a_page_of_plain_records_is_passed_as_it_is() -> None:
    class Once(MemorySource):
        async def read(self, cursor: Cursor, records_max: int) -> Page:
            page = await super().read(cursor, records_max)
            self.page = page
            return page

    inner = Once(stream_of([0, 0]))
    [page] = await pages(UnpackedSource(inner))
    assert page is inner.page


async def test_a_page_ends_behind_a_whole_record_and_holds_a_bounded_number_of_events() -> None:
    stream = stream_of([4000] * 9)
    stream.split(SHARD)
    source = Asked(stream)
    found = await pages(UnpackedSource(source))
    assert [len(page.records) for page in found] == [12_000] * 3
    assert [int(record.data) for page in found for record in page.records] == list(range(36_000))
    assert all(a.records[-1].sequence < b.records[0].sequence for a, b in pairwise(found))
    assert [page.behind_ms > 0 for page in found] == [True, True, False]
    assert found[-1].next is None


async def test_reads_ask_for_as_many_records_as_make_a_page() -> None:
    source = Asked(stream_of([2500] * 40))
    found = await pages(UnpackedSource(source))
    assert sum(len(page.records) for page in found) == 100_000
    assert max(source.asked[1:]) <= 5, "little is read twice"
    assert PAGE_EVENTS_MAX <= len(found[0].records) < PAGE_EVENTS_MAX + 2500


async def test_reads_grow_again_when_aggregates_are_gone() -> None:
    source = Asked(stream_of([5000] * 4 + [0] * 200))
    await pages(UnpackedSource(source), records_max=100)
    assert source.asked[1] == 2
    assert source.asked[-1] > 20


async def test_pages_of_aggregates_are_as_large_in_bytes_as_the_share_of_their_window() -> None:
    stream = stream_of([50] * 60)
    source = Asked(stream)
    share = 10 * sum(map(len, [b"1000"] * 50))
    settings = LogSettings(10**9, reads_per_s=10_000, idle_read_s=0.001)
    log = ShardLog(
        UnpackedSource(source), SHARD, settings, prepare, Silent(), {"source": "s"}, Memory(share * 24).window()
    )
    live = asyncio.create_task(log.run())
    position, seen = TrimHorizon(), 0
    while seen < 3000:
        batch, _ = await log.next(position, None)
        position, seen = batch.after, seen + len(batch.records)
    live.cancel()
    await asyncio.wait((live,))
    assert source.asked[0] == 1, "a record of unknown size"
    assert set(source.asked[2:]) <= set(range(8, 16)), "of those that are seen, ten"


# --- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_the_paces_windows_and_starts_every_link_gets_every_event_once(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([0, 0, 1, 2, 7]) for _ in range(rng.randrange(1, 40))]
    stream = stream_of(sizes)
    count = sum(max(1, size) for size in sizes)
    if rng.random() < 0.5:
        stream.split(SHARD)
    settings = LogSettings(
        rng.choice([1, 10, 30, 10**6]), records_per_read=rng.randrange(1, 9), reads_per_s=10_000, idle_read_s=0.001
    )
    source = UnpackedSource(MemorySource(stream), events_max=rng.choice([3, 10, 1000]))
    log = ShardLog(source, SHARD, settings, prepare, Silent(), {"source": "s"}, Memory(10**10).window())
    live = asyncio.create_task(log.run())

    async def link(start: Position, missed: int, pause_s: float) -> list[int]:
        """Goes on behind whole records only, as spans do, at times with a part of what it got."""
        got: list[int] = []
        position, cursor = start, None
        while len(got) < count - missed and position != ShardEnd():
            try:
                batch, cursor = await log.next(position, cursor)
            except TransientError:
                continue
            *cuts, end = ends(batch.records, rng.randrange(1, 6)) or [0]
            if cuts and rng.random() < 0.3:
                end = rng.choice(cuts)
                position, cursor = After(batch.records[end - 1].record.sequence), None
            else:
                position = batch.after
            got += [int(prepared.record.data) for prepared in batch.records[:end]]
            await asyncio.sleep(pause_s)
        return got

    places: list[tuple[Position, int]] = [(TrimHorizon(), 0)]
    for record, behind in zip(stream.records(SHARD)[:-1], range(len(sizes)), strict=False):
        places.append((After(record.sequence), sum(max(1, size) for size in sizes[: behind + 1])))
    starts = [rng.choice(places) for _ in range(4)]
    async with asyncio.timeout(20):
        got = await asyncio.gather(*[link(*start, rng.choice([0.0, 0.001])) for start in starts])
    live.cancel()
    await asyncio.wait((live,))
    assert got == [list(range(missed, count)) for _, missed in starts]


def prepare(page: Page) -> tuple[Prepared, ...]:
    return tuple(Prepared(record, BIRTHPLACE) for record in page.records)


# --- spans ---------------------------------------------------------------------------------------------------------


def span_ends(records: Sequence[Prepared], events_max: int) -> list[int]:
    """Where a channel cuts a batch, with spans of so many events."""
    ends = [whole_end(records, 0, events_max)]
    while ends[-1] < len(records):
        ends.append(whole_end(records, ends[-1], ends[-1] + events_max))
    return ends


def batch_of(sizes: Sequence[int]) -> list[Prepared]:
    records = [Record(b"", "k", str(at), 0, sub) for at, size in enumerate(sizes) for sub in range(size)]
    return [Prepared(record, BIRTHPLACE) for record in records]


def ends(batch: Sequence[Prepared], events_max: int) -> list[int]:
    """Runs of ``events_max``, as a channel takes them."""
    found = [0]
    while found[-1] < len(batch):
        found.append(whole_end(batch, found[-1], min(len(batch), found[-1] + events_max)))
    return found[1:]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 10))
def test_spans_hold_all_events_in_whole_records(sizes: list[int], events_max: int) -> None:
    batch = batch_of(sizes)
    for begin, end in pairwise([0, *ends(batch, events_max)]):
        inside = {prepared.record.sequence for prepared in batch[begin:end]}
        assert not inside & {prepared.record.sequence for prepared in batch[end:]}
        assert end - begin <= events_max or len(inside) == 1


def test_plain_records_fill_their_spans() -> None:
    assert ends(batch_of([1] * 12), 5) == [5, 10, 12]


def test_a_record_that_would_be_cut_begins_the_next_span_and_a_large_one_is_a_span_by_itself() -> None:
    assert ends(batch_of([1, 1, 3, 9, 1]), 4) == [2, 5, 14, 15]


def test_a_batch_without_records_is_one_empty_span() -> None:
    assert whole_end([], 0, 0) == 0
