"""A sharded stream in memory with a source and a sink on it: the twin of Kinesis for simulation and tests.

Passes the same contract suites as the real adapters. Time comes from outside; nothing awaits, so every call is atomic.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from hashlib import md5

from msgspec import Struct

from replicator.core.model import (
    After,
    AtTimestamp,
    Origin,
    Position,
    Record,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    TrimHorizon,
)
from replicator.errors import PositionLost, Refused
from replicator.ports import Cursor, Entry, Found, Page, SinkLimits, SourceInfo

HASH_END = 2**128
SEQUENCE_BASE = 49 * 10**54
"""Kinesis numbers have 56 digits."""

Fault = Callable[[Sequence[Entry]], Sequence[str | None] | None]
"""Called before the entries of a put are stored: may raise, or answer an error code for each entry that fails."""
AfterPut = Callable[[Sequence[Entry]], None]
"""Called when they are stored, before the answer: may raise, which loses the answer."""


class _Shard(Struct):
    id: ShardId
    start: int
    end: int
    parents: tuple[ShardId, ...] = ()
    is_closed: bool = False
    records: list[Record] = []


class MemoryStream:
    """Shards over the MD5 range of the partition key, as Kinesis has them."""

    def __init__(self, now_ms: Callable[[], int], shards: int = 1, retention_ms: int = 86_400_000) -> None:
        self.now_ms = now_ms
        self.created_ms = now_ms()
        self.retention_ms = retention_ms
        self.fault: Fault | None = None
        self.after_put: AfterPut | None = None
        self._sequence = SEQUENCE_BASE
        self._shards: dict[ShardId, _Shard] = {}
        for number in range(shards):
            self._add(HASH_END * number // shards, HASH_END * (number + 1) // shards, ())

    def _add(self, start: int, end: int, parents: tuple[ShardId, ...]) -> _Shard:
        shard = _Shard(ShardId(f"shardId-{len(self._shards):012d}"), start, end, parents)
        self._shards[shard.id] = shard
        return shard

    def split(self, shard: ShardId) -> None:
        """Close the shard; two children take its range."""
        parent = self._shards[shard]
        parent.is_closed = True
        middle = (parent.start + parent.end) // 2
        self._add(parent.start, middle, (shard,))
        self._add(middle, parent.end, (shard,))

    def merge(self, left: ShardId, right: ShardId) -> None:
        """Close two adjacent shards; one child takes both ranges."""
        for shard in (left, right):
            self._shards[shard].is_closed = True
        self._add(self._shards[left].start, self._shards[right].end, (left, right))

    def trim(self, shard: ShardId, count: int) -> None:
        """Drop the oldest records, as retention does."""
        del self._shards[shard].records[:count]

    def shard_of(self, key: str) -> ShardId:
        place = int(md5(key.encode(), usedforsecurity=False).hexdigest(), 16)
        return next(s.id for s in self._shards.values() if not s.is_closed and s.start <= place < s.end)

    def store(self, entry: Entry) -> SequenceNumber:
        self._sequence += 1
        sequence = SequenceNumber(self._sequence)
        record = Record(entry.data, entry.partition_key, sequence, self.now_ms())
        self._shards[self.shard_of(entry.partition_key)].records.append(record)
        return sequence

    def list_shards(self) -> list[Shard]:
        return [Shard(shard.id, shard.parents) for shard in self._shards.values()]

    def records(self, shard: ShardId) -> list[Record]:
        return self._shards[shard].records

    def is_closed(self, shard: ShardId) -> bool:
        return self._shards[shard].is_closed


class MemorySource:
    """Implements `ports.Source`."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream

    async def describe(self) -> SourceInfo:
        return SourceInfo(str(self._stream.created_ms), self._stream.retention_ms)

    async def shards(self) -> Sequence[Shard]:
        return self._stream.list_shards()

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if isinstance(position, After) and position.sequence < SEQUENCE_BASE:
            raise PositionLost(f"{shard} never had {position.sequence}")
        return Cursor(shard, position, "memory")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        records = self._stream.records(cursor.shard)
        start = _index(records, cursor.position)
        page = tuple(records[start : start + records_max])
        rest = records[start + records_max :]
        position = After(page[-1].sequence) if page else cursor.position
        is_end = self._stream.is_closed(cursor.shard) and not rest
        behind_ms = max(1, self._stream.now_ms() - rest[0].arrival_ms) if rest else 0
        return Page(page, None if is_end else Cursor(cursor.shard, position, "memory"), behind_ms)


def _index(records: list[Record], position: Position) -> int:
    match position:
        case TrimHorizon():
            return 0
        case AtTimestamp(ms=ms):
            return bisect_left(records, ms, key=lambda record: record.arrival_ms)
        case After(sequence=sequence):
            return bisect_right(records, sequence, key=lambda record: record.sequence)
        case ShardEnd():
            return len(records)


class MemorySink:
    """Implements `ports.Sink`."""

    def __init__(self, stream: MemoryStream, limits: SinkLimits | None = None) -> None:
        self._stream = stream
        self._limits = limits or SinkLimits(500, 5 * 1024 * 1024, 1024 * 1024)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry]) -> Sequence[str | None]:
        if any(
            len(entry.data) + len(entry.partition_key.encode()) > self._limits.record_bytes_max for entry in entries
        ):
            raise Refused("a record is larger than the stream takes")
        codes = self._stream.fault(entries) if self._stream.fault is not None else None
        codes = codes or (None,) * len(entries)
        for entry, code in zip(entries, codes, strict=True):
            if code is None:
                self._stream.store(entry)
        if self._stream.after_put is not None:
            self._stream.after_put(entries)
        return codes

    async def peer_time_ms(self) -> int:
        return self._stream.now_ms() - 1000

    async def read_back(self, since_ms: int, origin_of: Callable[[bytes], Origin | None], *, records_max: int) -> Found:
        origins: set[Origin] = set()
        read = 0
        for shard in self._stream.list_shards():
            records = self._stream.records(shard.id)
            for record in records[_index(records, AtTimestamp(since_ms)) :]:
                if read >= records_max:
                    return Found(frozenset(origins), is_complete=False, records_read=read)
                read += 1
                origin = origin_of(record.data)
                if origin is not None:
                    origins.add(origin)
        return Found(frozenset(origins), is_complete=True, records_read=read)
