"""One stream: its shards, which of them takes a partition key, and how they split and merge."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import md5
from itertools import pairwise

from msgspec import UNSET

from replicator.dev.kinesis_limits import Limits
from replicator.dev.kinesis_shard import ShardLog
from replicator.dev.kinesis_wire import KinesisError, PutResult, ShardFilter, invalid

HASH_KEYS = 1 << 128
HOUR_MS = 3_600_000
EXPIRY_CHECK_MS = 1_000
COUNTS = (
    "records_in",
    "bytes_in",
    "entries_throttled",
    "entries_failed",
    "reads",
    "reads_throttled",
    "records_out",
    "bytes_out",
)


@lru_cache(maxsize=65_536)
def hash_of(partition_key: str) -> int:
    """MD5 of the partition key as AWS routes by it."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


class Stream:
    def __init__(
        self, name: str, shard_count: int, limits: Limits, *, tick_s: int, now_ms: int, created_ms: int
    ) -> None:
        """``tick_s`` goes into sequence numbers; ``created_ms`` is unique and tells incarnations apart."""
        self.name = name
        self.created_ms = created_ms
        self.retention_hours = 24
        self.settled_at_ms = now_ms + limits.settle_ms
        self.settling = "CREATING"
        self.shards: dict[str, ShardLog] = {}
        self.counts = dict.fromkeys(COUNTS, 0)
        self._limits = limits
        self._numbered = 0
        self._expire_at_ms = 0
        bounds = [HASH_KEYS * i // shard_count for i in range(shard_count + 1)]
        for low, high in pairwise(bounds):
            self._add((low, high - 1), (), tick_s, now_ms)
        self._route()

    def status(self, now_ms: int) -> str:
        return "ACTIVE" if now_ms >= self.settled_at_ms else self.settling

    def shard(self, shard_id: str) -> ShardLog:
        try:
            return self.shards[shard_id]
        except KeyError:
            raise KinesisError(
                "ResourceNotFoundException", f"Shard {shard_id} in stream {self.name} does not exist"
            ) from None

    def shard_for(self, partition_key: str, explicit_hash_key: str | None) -> ShardLog:
        """The open shard whose range holds the key. Raises InvalidArgumentException for a bad hash key."""
        if explicit_hash_key is not None:
            point = self._hash_key(explicit_hash_key)
        elif len(self.open_shards) == 1:
            return self.open_shards[0]
        else:
            point = hash_of(partition_key)
        return self.open_shards[bisect_right(self._starts, point) - 1]

    def split(self, shard_id: str, new_start: str, tick_s: int, now_ms: int) -> None:
        """Close the shard and open two that share its range at ``new_start``."""
        parent = self._writable(shard_id, now_ms)
        at = self._hash_key(new_start)
        if not parent.hash_start < at <= parent.hash_end:
            raise invalid(f"NewStartingHashKey {new_start} used in SplitShard() on shard {shard_id} is not valid.")
        for hash_range in ((parent.hash_start, at - 1), (at, parent.hash_end)):
            self._add(hash_range, (parent,), tick_s, now_ms)
        self._reshaped([parent], now_ms)

    def merge(self, shard_id: str, adjacent_id: str, tick_s: int, now_ms: int) -> None:
        """Close two neighbours and open one for both their ranges."""
        parents = (self._writable(shard_id, now_ms), self._writable(adjacent_id, now_ms))
        low, high = sorted(parents, key=lambda shard: shard.hash_start)
        if low.hash_end + 1 != high.hash_start:
            raise invalid(f"Shards {shard_id} and {adjacent_id} in stream {self.name} are not an adjacent pair.")
        self._add((low.hash_start, high.hash_end), parents, tick_s, now_ms)
        self._reshaped(list(parents), now_ms)

    def count_puts(self, results: Sequence[PutResult], sizes: Sequence[int], *, injected: int) -> None:
        stored = [size for result, size in zip(results, sizes, strict=True) if result.error_code is UNSET]
        self.counts["records_in"] += len(stored)
        self.counts["bytes_in"] += sum(stored)
        self.counts["entries_failed"] += injected
        self.counts["entries_throttled"] += len(results) - len(stored) - injected

    def expire(self, now_ms: int) -> None:
        """Trim what is older than the retention; a closed shard goes when all it ever held is that old.

        Called with every request, it looks once in ``EXPIRY_CHECK_MS`` only.
        """
        if now_ms < self._expire_at_ms:
            return
        self._expire_at_ms = now_ms + EXPIRY_CHECK_MS
        horizon = now_ms - self.retention_hours * HOUR_MS
        for shard in list(self.shards.values()):
            shard.trim(shard.position_at_ms(horizon))
            if shard.closed_ms is not None and shard.closed_ms < horizon:
                del self.shards[shard.id]

    def passes(self, shard: ShardLog, wanted: ShardFilter | None) -> bool:
        """Whether ListShards shows the shard under this filter, as the API page of ShardFilter has it."""
        closed_ms = math.inf if shard.closed_ms is None else shard.closed_ms
        match wanted:
            case None | ShardFilter(type="AT_TRIM_HORIZON" | "FROM_TRIM_HORIZON"):
                return True
            case ShardFilter(type="AT_LATEST"):
                return shard.closed_ms is None
            case ShardFilter(type="AFTER_SHARD_ID", shard_id=str(shard_id)):
                return shard.id > shard_id
            case ShardFilter(type="AT_TIMESTAMP", timestamp=float(seconds)):
                return shard.opened_ms <= seconds * 1000 <= closed_ms
            case ShardFilter(type="FROM_TIMESTAMP", timestamp=float(seconds)):
                return closed_ms >= seconds * 1000
        raise invalid(f"ShardFilter {wanted.type} is not valid, or lacks its ShardId or Timestamp.")

    def _writable(self, shard_id: str, now_ms: int) -> ShardLog:
        shard = self.shard(shard_id)
        if self.status(now_ms) != "ACTIVE":
            raise KinesisError("ResourceInUseException", f"Stream {self.name} is not ACTIVE.")
        if shard.closed_ms is not None:
            raise invalid(f"Shard {shard_id} in stream {self.name} is closed.")
        return shard

    def _hash_key(self, text: str) -> int:
        if not text.isdecimal() or int(text) >= HASH_KEYS:
            raise invalid(f"Invalid hash key {text}: a decimal number below 2^128 is expected.")
        return int(text)

    def _add(self, hash_range: tuple[int, int], parents: tuple[ShardLog, ...], tick_s: int, now_ms: int) -> None:
        shard = ShardLog(self._numbered, hash_range, parents, created_s=tick_s, now_ms=now_ms, limits=self._limits)
        self._numbered += 1
        self.shards[shard.id] = shard
        for parent in parents:
            parent.children.append(shard)

    def _reshaped(self, closed: list[ShardLog], now_ms: int) -> None:
        for shard in closed:
            shard.closed_ms = now_ms
        self.settling = "UPDATING"
        self.settled_at_ms = now_ms + self._limits.settle_ms
        self._route()

    def _route(self) -> None:
        is_open = (shard for shard in self.shards.values() if shard.closed_ms is None)
        self.open_shards = sorted(is_open, key=lambda shard: shard.hash_start)
        self._starts = [shard.hash_start for shard in self.open_shards]
