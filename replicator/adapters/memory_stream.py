"""A sharded stream in memory with a source and a sink on it: the twin of Kinesis for simulation and tests.

Passes the same contract suites as the real adapters. Records stay in the shard they were put to, a split or merge
closes the parents, a closed shard ends, what is older than the retention is gone and passed over in silence, as AWS
does. Time comes from outside and nothing is random; only `before` may wait, so every effect is atomic.

A sequence number has 56 decimal digits: ``4``, when its shard was made (23 digits: creation time of the stream in ms
and a counter), the record's index (24), the shard's number (8). So it grows within a shard and along its lineage, is
unique over incarnations, and tells its shard.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal

from msgspec import Struct

from replicator.aws.kinesis_api import PARTITION_KEY_CHARACTERS_MAX
from replicator.core.hash_range import HASH_END, could_hold, hash_key
from replicator.core.in_doubt import SIGNATURE_WINDOW_MS
from replicator.core.kpl import events
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
from replicator.core.outcome import Outcome
from replicator.core.peer_clock import PeerTime
from replicator.errors import PositionLost, Refused, TransientError
from replicator.ports import NOT_KEPT, Cursor, Entry, Found, Page, SinkLimits, SourceInfo

_SHARD_NUMBERS, _INDICES, _MADE, _COUNTS = 10**8, 10**24, 10**23, 10**9

Operation = Literal["describe", "shards", "open", "read", "is_kept", "put", "peer_time", "refuses", "read_back"]
Before = Callable[[Operation], Awaitable[None]]
"""Called before every call of source and sink, and before each shard of a reading back: may wait, or raise."""
Fault = Callable[[Sequence[Entry]], Sequence[Outcome] | None]
"""Called before the entries of a put are stored: may raise, or answer an error code for each entry that fails."""
AfterPut = Callable[[Sequence[Entry]], None]
"""Called when they are stored, before the answer: may raise, which loses the answer."""


class _Shard(Struct):
    number: int
    start: int
    end: int
    parents: tuple[ShardId, ...]
    made: int
    closed_ms: int | None = None
    records: list[Record] = []
    trimmed: int = 0
    last_ms: int = 0

    @property
    def id(self) -> ShardId:
        return ShardId(f"shardId-{self.number:012d}")

    @property
    def tip(self) -> int:
        """The index behind the last record ever put."""
        return self.trimmed + len(self.records)

    def sequence(self, index: int) -> SequenceNumber:
        return SequenceNumber(((4 * _MADE + self.made) * _INDICES + index) * _SHARD_NUMBERS + self.number)

    def index(self, position: Position) -> int:
        """What reading begins with. Raises PositionLost for a number that isn't one of this shard's."""
        match position:
            case TrimHorizon():
                return self.trimmed
            case AtTimestamp(ms=ms):
                return self.trimmed + bisect_left(self.records, ms, key=lambda record: record.arrival_ms)
            case After(sequence=sequence):
                index = sequence // _SHARD_NUMBERS % _INDICES
                if self.sequence(index) != sequence or index >= self.tip:
                    raise PositionLost(f"{self.id} never had {sequence}")
                return index + 1
            case ShardEnd():
                return self.tip


class MemoryStream:
    """Shards over the MD5 range of the partition key, as Kinesis has them."""

    def __init__(self, now_ms: Callable[[], int], shards: int = 1, retention_ms: int = 86_400_000) -> None:
        self.now_ms = now_ms
        self.retention_ms = retention_ms
        self.before: Before | None = None
        self.fault: Fault | None = None
        self.after_put: AfterPut | None = None
        self.created_ms = -1
        self.recreate(shards)

    def recreate(self, shards: int = 1) -> None:
        """Delete the stream and make it anew under its name: another incarnation, no record left."""
        self.created_ms = max(self.now_ms(), self.created_ms + 1)
        self._made = 0
        self._shards: dict[ShardId, _Shard] = {}
        for number in range(shards):
            self._add(HASH_END * number // shards, HASH_END * (number + 1) // shards, ())

    def _add(self, start: int, end: int, parents: tuple[ShardId, ...]) -> ShardId:
        shard = _Shard(self._made, start, end, parents, self.created_ms * _COUNTS + self._made)
        self._made += 1
        self._shards[shard.id] = shard
        return shard.id

    def split(self, shard: ShardId) -> tuple[ShardId, ShardId]:
        """Close the shard; two children take its range."""
        parent = self._close(shard)
        middle = (parent.start + parent.end) // 2
        return self._add(parent.start, middle, (shard,)), self._add(middle, parent.end, (shard,))

    def merge(self, left: ShardId, right: ShardId) -> ShardId:
        """Close two adjacent shards; one child takes both ranges."""
        low, high = self._close(left), self._close(right)
        return self._add(low.start, high.end, (left, right))

    def _close(self, shard: ShardId) -> _Shard:
        closed = self._shards[shard]
        closed.closed_ms = self.now_ms()
        return closed

    def trim(self, shard: ShardId, count: int) -> None:
        """Drop the oldest records, as retention does."""
        log = self._shards[shard]
        log.trimmed += len(log.records[:count])
        del log.records[:count]

    def shard_of(self, key: str) -> ShardId:
        place = hash_key(key)
        is_open = (shard for shard in self._shards.values() if shard.closed_ms is None)
        return next(shard.id for shard in is_open if shard.start <= place < shard.end)

    def store(self, entry: Entry) -> SequenceNumber:
        log = self._shards[self.shard_of(entry.partition_key)]
        log.last_ms = max(self.now_ms(), log.last_ms)  # arrival times never decrease within a shard
        sequence = log.sequence(log.tip)
        log.records.append(Record(entry.data, entry.partition_key, str(sequence), log.last_ms))
        return sequence

    def list_shards(self) -> list[Shard]:
        self._expire()
        return [Shard(shard.id, shard.parents, (shard.start, shard.end - 1)) for shard in self._shards.values()]

    def records(self, shard: ShardId) -> list[Record]:
        """What the shard keeps, oldest first; nothing of a shard that is gone."""
        log = self._shards.get(shard)
        return [] if log is None else log.records

    def is_closed(self, shard: ShardId) -> bool:
        return self._listed(shard).closed_ms is not None

    def index(self, shard: ShardId, position: Position) -> int:
        """The index that reading begins with. Raises PositionLost, TransientError for a time to come."""
        if isinstance(position, AtTimestamp) and position.ms > self.now_ms():
            raise TransientError(f"{position} is in the future", code="InvalidArgumentException")
        return self._listed(shard).index(position)

    def is_kept(self, shard: ShardId, position: After) -> bool:
        """Whether the record of this number is there. Raises as `index`."""
        log = self._listed(shard)
        return log.index(position) > log.trimmed

    def page(self, shard: ShardId, index: int, records_max: int) -> tuple[Sequence[Record], int, int]:
        """Records from ``index`` or the oldest one kept, the index behind them, and how far behind that is."""
        log = self._listed(shard)
        first = max(index - log.trimmed, 0)
        records = log.records[first : first + records_max]
        rest = log.records[first + len(records) :][:1]
        behind_ms = max(1, self.now_ms() - rest[0].arrival_ms) if rest else 0
        return records, log.trimmed + first + len(records), behind_ms

    def _listed(self, shard: ShardId) -> _Shard:
        self._expire()
        if shard not in self._shards:
            raise PositionLost(f"the stream no longer has the shard {shard}")
        return self._shards[shard]

    def _expire(self) -> None:
        """Trim what is older than the retention; a closed shard goes when all it ever held is that old."""
        horizon_ms = self.now_ms() - self.retention_ms
        for log in list(self._shards.values()):
            self.trim(log.id, log.index(AtTimestamp(horizon_ms)) - log.trimmed)
            if log.closed_ms is not None and log.closed_ms < horizon_ms:
                del self._shards[log.id]

    async def reached(self, operation: Operation) -> None:
        if self.before is not None:
            await self.before(operation)


class MemorySource:
    """Implements `ports.Source`."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream

    async def describe(self) -> SourceInfo:
        await self._stream.reached("describe")
        return SourceInfo(str(self._stream.created_ms), self._stream.retention_ms)

    async def shards(self) -> Sequence[Shard]:
        await self._stream.reached("shards")
        return self._stream.list_shards()

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        await self._stream.reached("open")
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        return Cursor(shard, position, self._token(self._stream.index(shard, position)))

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        await self._stream.reached("read")
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        records, following, behind_ms = self._stream.page(cursor.shard, self._index(cursor), records_max)
        page = tuple(records)
        position = After(page[-1].sequence) if page else cursor.position
        is_end = behind_ms == 0 and self._stream.is_closed(cursor.shard)
        return Page(page, None if is_end else Cursor(cursor.shard, position, self._token(following)), behind_ms)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        await self._stream.reached("is_kept")
        return self._stream.is_kept(shard, position)

    def _token(self, index: int) -> str:
        return f"{self._stream.created_ms}/{index}"

    def _index(self, cursor: Cursor) -> int:
        """Where the token stands, which never expires; of a deleted stream, by the cursor's position."""
        created_ms, index = map(int, cursor.token.split("/"))
        if created_ms != self._stream.created_ms:
            return self._stream.index(cursor.shard, cursor.position)
        return index


class MemorySink:
    """Implements `ports.Sink`. ``window_ms``: how long after its date a request is taken, None for ever."""

    def __init__(
        self, stream: MemoryStream, limits: SinkLimits | None = None, window_ms: int | None = SIGNATURE_WINDOW_MS
    ) -> None:
        self._stream = stream
        self._window_ms = window_ms
        self._limits = limits or SinkLimits(500, 5 * 1024 * 1024, 1024 * 1024)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[Outcome]:
        await self._stream.reached("put")
        if signed_ms is not None and self._has_expired(signed_ms):
            raise TransientError("the request's signature has expired", code="late")
        self._check(entries)
        codes = self._stream.fault(entries) if self._stream.fault is not None else None
        codes = codes or (None,) * len(entries)
        for entry, code in zip(entries, codes, strict=True):
            if code is None:
                self._stream.store(entry)
        if self._stream.after_put is not None:
            self._stream.after_put(entries)
        return codes

    def _check(self, entries: Sequence[Entry]) -> None:
        limits = self._limits
        if not 1 <= len(entries) <= limits.records_max:
            raise Refused(f"{len(entries)} records in one request, 1 to {limits.records_max} are taken")
        if not all(1 <= len(entry.partition_key) <= PARTITION_KEY_CHARACTERS_MAX for entry in entries):
            raise Refused(f"a partition key has 1 to {PARTITION_KEY_CHARACTERS_MAX} characters")
        sizes = [entry.size_bytes for entry in entries]
        if max(sizes) > limits.record_bytes_max or sum(sizes) > limits.request_bytes_max:
            raise Refused(f"the largest record has {max(sizes)} bytes, all have {sum(sizes)}: over the limits")

    def _has_expired(self, dated_ms: int) -> bool:
        return self._window_ms is not None and self._stream.now_ms() - dated_ms > self._window_ms

    async def peer_time(self) -> PeerTime:
        await self._stream.reached("peer_time")
        now_ms = self._stream.now_ms()
        return PeerTime(now_ms - 1000, now_ms + 1000, asyncio.get_running_loop().time())

    async def refuses(self, dated_ms: int) -> bool:
        await self._stream.reached("refuses")
        return self._has_expired(dated_ms)

    async def read_back(
        self,
        since_ms: int,
        origin_of: Callable[[bytes], Origin | None],
        *,
        records_max: int,
        bytes_max: int | None = None,
        until_ms: int | None = None,
        keys: Collection[str] | None = None,
    ) -> Found:
        """Shard by shard, listed anew each time: what happens meanwhile is seen as a real reading sees it."""
        hashes = None if keys is None else frozenset(map(hash_key, keys))
        origins: set[Origin] = set()
        seen: set[ShardId] = set()
        read = size = 0
        while fresh := [shard for shard in self._stream.list_shards() if shard.id not in seen]:
            shard = fresh[0]
            seen.add(shard.id)
            if hashes is not None and not could_hold(shard.hash_range, hashes):
                continue
            await self._stream.reached("read_back")
            for record in [r for r in self._stream.records(shard.id) if r.arrival_ms >= since_ms]:
                if until_ms is not None and record.arrival_ms > until_ms:
                    break
                if read >= records_max or (bytes_max is not None and size >= bytes_max):
                    return Found(frozenset(origins), is_complete=False, records_read=read, why="a bound was met")
                read += 1
                size += len(record.data)
                found = map(origin_of, events(record.data))
                origins.update(origin for origin in found if origin is not None)
        is_kept = since_ms >= self._stream.now_ms() - self._stream.retention_ms
        return Found(frozenset(origins), is_kept, read, "" if is_kept else NOT_KEPT)
