"""One shard: an append-only log with AWS-like sequence numbers.

A sequence number has 56 decimal digits and these bits, like AWS's own: version 2 (4), creation second (36),
low nibble of the shard's number (4), index in the shard (64), spare (8), second of arrival (36), shard's
number (32), version 2 (4). The index makes a position out of a number without a search; the rest tells
whether the number came from this shard.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from replicator.dev.kinesis_limits import Budget, Limits
from replicator.dev.kinesis_wire import (
    ChildShard,
    HashKeyRange,
    SequenceNumberRange,
    ShardView,
    StoredRecord,
    invalid,
)

_VERSION = 2
_INDEX_SHIFT = 80
_INDEX_MASK = (1 << 64) - 1
_SECOND_SHIFT = 36
_SECOND_MASK = (1 << 36) - 1
_LAST_INDEX = (1 << 63) - 1
"""The index of the ending sequence number of a closed shard, above every record's."""


def _base(created_s: int, number: int) -> int:
    top = _VERSION << 184 | created_s << 148 | (number & 0xF) << 144
    return top | number << 4 | _VERSION


class ShardLog:
    """Records as they were received. A position counts the records ever put before it, trimmed ones too."""

    def __init__(
        self,
        number: int,
        hash_range: tuple[int, int],
        parents: Sequence["ShardLog"],
        *,
        created_s: int,
        now_ms: int,
        limits: Limits,
    ) -> None:
        self.id = f"shardId-{number:012d}"
        self.parents = tuple(parent.id for parent in parents)
        self.hash_start, self.hash_end = hash_range
        self.opened_ms = now_ms
        self.closed_ms: int | None = None
        self.children: list[ShardLog] = []
        self._base = _base(created_s, number)
        self._created_s = created_s
        self._records: list[StoredRecord] = []
        self._arrivals_ms: list[int] = []
        self._bytes_through: list[int] = []
        self._trimmed = 0
        self._trimmed_bytes = 0
        self._bytes_end = 0
        self._last_ms = 0
        self.writes = Budget(limits.write_records_s, limits.write_bytes_s)
        self.reads = Budget(limits.read_calls_s, limits.read_bytes_s)

    @property
    def end(self) -> int:
        """The position behind the last record."""
        return self._trimmed + len(self._records)

    @property
    def start(self) -> int:
        """The position of the oldest record kept."""
        return self._trimmed

    @property
    def bytes_kept(self) -> int:
        return self._bytes_end - self._trimmed_bytes

    def append(self, data: str, partition_key: str, size: int, now_ms: int) -> str:
        """Store one record and return its sequence number. Arrival times never decrease within a shard."""
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            self._last_s = now_ms / 1000
            self._stem = self._base | now_ms // 1000 << _SECOND_SHIFT
        self._bytes_end += size
        records = self._records
        sequence = str(self._stem + (self._trimmed + len(records) + 1 << _INDEX_SHIFT))
        records.append(StoredRecord(sequence, self._last_s, data, partition_key))
        self._arrivals_ms.append(self._last_ms)
        self._bytes_through.append(self._bytes_end)
        return sequence

    def page(self, position: int, records_max: int, bytes_max: int) -> tuple[list[StoredRecord], int, int]:
        """Records from ``position``, the position behind them, their size; at least one if there is any."""
        first = max(position, self._trimmed) - self._trimmed
        through = self._bytes_through
        before = through[first - 1] if first else self._trimmed_bytes
        last = min(first + records_max, len(through))
        if last > first:
            last = max(first + 1, bisect_right(through, before + bytes_max, first, last))
        size = through[last - 1] - before if last > first else 0
        return self._records[first:last], self._trimmed + last, size

    def behind_ms(self, position: int, now_ms: int) -> int:
        """How old the oldest record at or behind ``position`` is; 0 at the tip, at least 1 otherwise."""
        if position >= self.end:
            return 0
        return max(1, now_ms - self._arrivals_ms[max(0, position - self._trimmed)])

    def position_at_ms(self, ms: float) -> int:
        return self._trimmed + bisect_left(self._arrivals_ms, ms)

    def position_of(self, sequence_number: str) -> int:
        """Where the record of this number is or was. Raises InvalidArgumentException if not of this shard."""
        number = int(sequence_number) if sequence_number.isdecimal() else 0
        index = number >> _INDEX_SHIFT & _INDEX_MASK
        arrived = number >> _SECOND_SHIFT & _SECOND_MASK
        rest = number ^ index << _INDEX_SHIFT ^ arrived << _SECOND_SHIFT
        is_issued = index <= self.end or (index == _LAST_INDEX and self.closed_ms is not None)
        if rest != self._base or not is_issued:
            raise invalid(
                f"StartingSequenceNumber {sequence_number} used in GetShardIterator on shard {self.id} "
                "is invalid because it did not come from this stream."
            )
        return min(index - 1, self.end) if index else -1

    def trim(self, position: int) -> int:
        """Forget the records before ``position``; returns how many."""
        count = min(position, self.end) - self._trimmed
        if count <= 0:
            return 0
        self._trimmed_bytes = self._bytes_through[count - 1]
        self._trimmed += count
        del self._records[:count], self._arrivals_ms[:count], self._bytes_through[:count]
        return count

    def view(self) -> ShardView:
        """The shard as DescribeStream and ListShards show it."""
        numbers = SequenceNumberRange(self._sequence(0, self._created_s))
        if self.closed_ms is not None:
            end = self._sequence(_LAST_INDEX, self.closed_ms // 1000)
            numbers = SequenceNumberRange(numbers.starting_sequence_number, end)
        padded: tuple[str | UnsetType, ...] = (*self.parents, UNSET, UNSET)
        return ShardView(
            shard_id=self.id,
            parent_shard_id=padded[0],
            adjacent_parent_shard_id=padded[1],
            hash_key_range=self._hash_range(),
            sequence_number_range=numbers,
        )

    def as_child(self) -> ChildShard:
        return ChildShard(self.id, list(self.parents), self._hash_range())

    def _hash_range(self) -> HashKeyRange:
        return HashKeyRange(str(self.hash_start), str(self.hash_end))

    def _sequence(self, index: int, second: int) -> str:
        return str(self._base | index << _INDEX_SHIFT | second << _SECOND_SHIFT)
