"""The shared log of a shard: everyone gets every record once and in order, however slow, however it is evicted."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.core.lending import Memory
from replicator.core.model import (
    After,
    Position,
    Region,
    SequenceNumber,
    ShardEnd,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.errors import PositionLost, TransientError
from replicator.ports import Cursor, Entry, Page
from replicator.worker.prepare import Birthplace, Prepared
from replicator.worker.shard_log import LogSettings, ShardLog

SHARD = ShardId("shardId-000000000000")
START = TrimHorizon()
BIRTHPLACE = Birthplace(Region("us-east-1"), SourceName("s"), "1", SHARD)


class Silent:
    def count(self, name: str, value: int, /, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...
    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class CountingSource(MemorySource):
    """Counts reads, and fails the first so many of them."""

    def __init__(self, stream: MemoryStream, failures: int = 0) -> None:
        super().__init__(stream)
        self.reads = 0
        self.failures = failures

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        self.reads += 1
        await asyncio.sleep(0)
        if self.reads <= self.failures:
            raise TransientError("not now", code="throttled")
        return await super().read(cursor, records_max)


def prepare(page: Page) -> tuple[Prepared, ...]:
    return tuple(Prepared(record, BIRTHPLACE) for record in page.records)


@asynccontextmanager
async def log_of(
    source: MemorySource,
    *,
    window_bytes: int = 10**9,
    page: int = 3,
    reads_per_s: float = 10_000,
    telemetry: Silent | None = None,
) -> AsyncIterator[ShardLog]:
    settings = LogSettings(window_bytes, page, reads_per_s, idle_read_s=0.001, retry_s=0.001)
    log = ShardLog(source, SHARD, settings, prepare, telemetry or Silent(), {"source": "s"}, Memory(10**10).window())
    live = asyncio.create_task(log.run())
    try:
        yield log
    finally:
        live.cancel()
        await asyncio.wait((live,))


def stream_of(count: int) -> MemoryStream:
    stream = MemoryStream(lambda: 5)
    for number in range(count):
        stream.store(Entry(str(number).encode(), "k"))
    return stream


async def read_to(log: ShardLog, count: int, position: Position = START, pause: float = 0.0) -> list[int]:
    """What one link gets until it has ``count`` records or the shard ends."""
    got: list[int] = []
    cursor: Cursor | None = None
    while len(got) < count and position != ShardEnd():
        batch, cursor = await log.next(position, cursor)
        got += [int(prepared.record.data) for prepared in batch.records]
        position = batch.after
        await asyncio.sleep(pause)
    return got


async def test_links_that_keep_up_share_every_read() -> None:
    source = CountingSource(stream_of(30))
    async with log_of(source) as log:
        got = await asyncio.gather(*[read_to(log, 30) for _ in range(4)])
    assert got == [list(range(30))] * 4
    assert source.reads <= 12


class Kinds(Silent):
    """Counts reads by who made them."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()

    def count(self, name: str, value: int, /, **labels: str) -> None:
        if name == "read_calls_total":
            self.reads[labels["kind"]] += value


async def test_links_that_catch_up_leave_the_live_reader_every_other_read() -> None:
    stream, kinds = stream_of(5_000), Kinds()
    tail = After(stream.records(SHARD)[-1].sequence)

    async def follow(log: ShardLog) -> None:
        """Always one more record behind the last one."""
        position: Position = tail
        while kinds.reads["live"] < 40:
            stream.store(Entry(b"0", "k"))
            batch, _ = await log.next(position, None)
            position = batch.after

    async with log_of(MemorySource(stream), window_bytes=8, reads_per_s=200, telemetry=kinds) as log:
        live = asyncio.create_task(follow(log))
        while not kinds.reads["live"]:
            await asyncio.sleep(0)
        behind = [asyncio.create_task(read_to(log, 5_000)) for _ in range(6)]
        await live
        for task in behind:
            task.cancel()
        await asyncio.wait(behind)
    assert kinds.reads["detached"] > 10
    assert kinds.reads["detached"] <= 60


async def test_a_slow_link_falls_out_of_the_window_reads_by_itself_and_misses_nothing() -> None:
    source = CountingSource(stream_of(60))
    async with log_of(source, window_bytes=8) as log:
        fast, slow = await asyncio.gather(read_to(log, 60), read_to(log, 60, pause=0.003))
    assert fast == slow == list(range(60))


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_the_paces_windows_and_starts_everyone_gets_everything_once(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(1, 60)
    stream = stream_of(count)
    sequences = [record.sequence for record in stream.records(SHARD)]
    starts = [rng.randrange(-1, count - 1) if count > 1 else -1 for _ in range(4)]
    if rng.random() < 0.5:
        stream.split(SHARD)
    source = CountingSource(stream, failures=rng.randrange(3))
    async with log_of(source, window_bytes=rng.choice([1, 10, 30, 10**6]), page=rng.randrange(1, 9)) as log:

        async def link(start: int, pause: float) -> list[int]:
            position: Position = After(sequences[start]) if start >= 0 else TrimHorizon()
            while True:
                try:
                    return await read_to(log, count - 1 - start, position, pause)
                except TransientError:
                    continue

        async with asyncio.timeout(20):
            got = await asyncio.gather(*[link(start, rng.choice([0.0, 0.001, 0.004])) for start in starts])
    assert got == [list(range(start + 1, count)) for start in starts]


async def test_a_link_that_waits_at_the_tip_gets_what_comes() -> None:
    stream = stream_of(1)
    async with log_of(CountingSource(stream)) as log:
        waiting = asyncio.create_task(read_to(log, 3))
        await asyncio.sleep(0.01)
        for number in (1, 2):
            stream.store(Entry(str(number).encode(), "k"))
        assert await waiting == [0, 1, 2]


class Vague(CountingSource):
    """A source that knows of the tip only when it finds nothing."""

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        page = await super().read(cursor, records_max)
        return Page(page.records, page.next, max(page.behind_ms, 1)) if page.records else page


async def test_a_link_is_told_once_that_it_is_at_the_tip() -> None:
    stream = stream_of(2)
    async with log_of(Vague(stream)) as log, asyncio.timeout(5):
        batch, _ = await log.next(START, None, is_at_tip=False)
        assert (len(batch.records), batch.is_tip) == (2, False)
        told, _ = await log.next(batch.after, None, is_at_tip=False)
        assert (told.records, told.after, told.is_tip) == ((), batch.after, True)
        waiting = asyncio.create_task(log.next(batch.after, None, is_at_tip=True))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        stream.store(Entry(b"2", "k"))
        more, _ = await waiting
        assert (len(more.records), more.is_tip) == (1, False)
        told, _ = await log.next(more.after, None, is_at_tip=False)
        assert told.is_tip


async def test_the_end_of_a_closed_shard_is_told_after_its_last_record() -> None:
    stream = stream_of(4)
    stream.split(SHARD)
    last = stream.records(SHARD)[-1].sequence
    async with log_of(CountingSource(stream)) as log:
        assert await read_to(log, 99) == [0, 1, 2, 3]
        assert await read_to(log, 99, After(last)) == []
        batch, _ = await log.next(ShardEnd(), None)
        assert batch.after == ShardEnd()


async def test_a_lost_position_is_told_to_the_link_that_stands_there() -> None:
    async with log_of(CountingSource(stream_of(3))) as log:
        with pytest.raises(PositionLost):
            await log.next(After(SequenceNumber(1)), None)
        assert await read_to(log, 3) == [0, 1, 2]


async def test_the_window_keeps_to_its_bound() -> None:
    async with log_of(CountingSource(stream_of(500)), window_bytes=60, page=10) as log:
        position: Position = TrimHorizon()
        for _ in range(40):
            batch, _ = await log.next(position, None)
            position = batch.after
            assert log.window.size_bytes <= 60
