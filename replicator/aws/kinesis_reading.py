"""Reading a whole stream from a time on, through resharding, with stated bounds: how a sink finds what it stored.

How it works: every listed shard that could hold a key in question is read from the time on until it ends, or the
service says that its tip is reached, or it shows an arrival behind the time of interest; then the shards are listed
again, until no new one appears. The children that a shard tells at its end are read as well: AWS does not promise that
a listing shows them as soon as they take records.

Why a complete reading proves absence: what was stored before it began lies before the tip in a shard that was listed,
or in one of its descendants. Behind an arrival that is too late nothing of interest follows; AWS does not promise that
arrival times of a shard never decrease, so who asks adds a margin for that. A bound that was met is said, never hidden.
"""

import asyncio
from collections.abc import Callable

import pybase64
from msgspec import Struct

from replicator.aws.kinesis_api import GET_RECORDS_MAX, GetRecordsReply, KinesisApi
from replicator.core.hash_range import could_hold
from replicator.core.kpl import events
from replicator.core.model import AtTimestamp, Origin, Shard, ShardId
from replicator.errors import TransientError
from replicator.ports import Found

PAGES_AT_ONCE = 2
"""Answers of up to 10 MiB (30 MiB while decoded) that are in memory together."""


SHARDS_KEPT = 100
"""Of so many a stream's pace is kept though nobody reads them any more; beyond, of twice those that are being read."""


class Wanted(Struct, frozen=True):
    """Times are the peer's clock. ``hashes`` of the keys in question (`core.hash_range`), None for all."""

    since_ms: int
    until_ms: int | None = None
    hashes: frozenset[int] | None = None


class Bounds(Struct, frozen=True):
    """Of one reading. Bytes are those of the records' data; a reading may pass them by the last pages under way."""

    records_max: int
    bytes_max: int
    time_max_s: float


class Pace:
    """The least time between two GetRecords on one shard, whose consumers share five a second.

    One for all readings of a stream.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s: dict[ShardId, float] = {}
        self._shards_max = SHARDS_KEPT

    async def turn(self, shard: ShardId) -> None:
        """Return when the shard may be read once more."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(now_s, self._next_s.get(shard, now_s))
        self._next_s[shard] = turn_s + self._interval_s
        if len(self._next_s) > self._shards_max:
            self._forget(now_s)
        await asyncio.sleep(turn_s - now_s)

    def _forget(self, now_s: float) -> None:
        """Shards that nobody reads now. Not at each turn: of n shards that would be n steps for each of their turns."""
        self._next_s = {shard: at_s for shard, at_s in self._next_s.items() if at_s > now_s}
        self._shards_max = max(SHARDS_KEPT, 2 * len(self._next_s))


class Reading:
    """One reading; `run` it once. Raises TransientError, Misconfigured or ServiceError."""

    def __init__(
        self,
        api: KinesisApi,
        wanted: Wanted,
        origin_of: Callable[[bytes], Origin | None],
        bounds: Bounds,
        pace: Pace,
    ) -> None:
        self._api = api
        self._wanted = wanted
        self._origin_of = origin_of
        self._bounds = bounds
        self._pace = pace
        self._until_s = asyncio.get_running_loop().time() + bounds.time_max_s
        self._slots = asyncio.Semaphore(PAGES_AT_ONCE)
        self._origins: set[Origin] = set()
        self._children: list[Shard] = []
        self._records = 0
        self._bytes = 0
        self._bound_met = ""

    async def run(self) -> Found:
        seen: set[ShardId] = set()
        while not self._bound_met:
            known = [*await self._api.shards(), *self._children]
            fresh = {shard.id: shard.hash_range for shard in known if shard.id not in seen}
            if not fresh:
                break
            seen.update(fresh)
            hashes = self._wanted.hashes
            await self._read_all([shard for shard, span in fresh.items() if hashes is None or could_hold(span, hashes)])
        return Found(frozenset(self._origins), not self._bound_met, self._records, self._bound_met)

    async def _read_all(self, shards: list[ShardId]) -> None:
        if not shards:
            return
        tasks = [asyncio.ensure_future(self._read_shard(shard)) for shard in shards]
        try:
            # Not a TaskGroup: before Python 3.13 an error inside it hides a cancellation from outside, and a sender
            # that lost its cancellation here would live on in a shard whose other tasks have ended.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read_shard(self, shard: ShardId) -> None:
        token: str | None = await self._start(shard)
        while token is not None:
            await self._pace.turn(shard)
            self._bound_met = self._bound_met or self._over()
            if self._bound_met:
                return
            reply = await self._page(token)
            if reply is not None:
                token = reply.next_shard_iterator
                self._children.extend(child.shard() for child in reply.child_shards)
                if reply.millis_behind_latest == 0 or self._is_past(reply):
                    return

    def _over(self) -> str:
        """The bound that is met."""
        if asyncio.get_running_loop().time() > self._until_s:
            return f"it took more than {self._bounds.time_max_s:g} s"
        if self._records >= self._bounds.records_max:
            return f"{self._bounds.records_max} records were read"
        if self._bytes >= self._bounds.bytes_max:
            return f"{self._bounds.bytes_max} bytes were read"
        return ""

    def _is_past(self, reply: GetRecordsReply) -> bool:
        """The shard has taken something behind the time of interest."""
        until_ms = self._wanted.until_ms
        if until_ms is None or not reply.records:
            return False
        return reply.records[-1].approximate_arrival_timestamp * 1000 > until_ms

    async def _start(self, shard: ShardId) -> str:
        async with self._slots:
            return await self._api.iterator(shard, AtTimestamp(self._wanted.since_ms))

    async def _page(self, token: str) -> GetRecordsReply | None:
        """The next page, taken in; None when the shard's consumers left nothing of its reads: ask again later."""
        async with self._slots:
            limit = max(1, min(GET_RECORDS_MAX, self._bounds.records_max - self._records))
            try:
                reply = await self._api.get_records(token, limit)
            except TransientError as exc:
                # Other failures end the reading: an unreachable peer must not run into the time bound.
                if exc.code != "throttled":
                    raise
                return None
            self._take(reply)
            return reply

    def _take(self, reply: GetRecordsReply) -> None:
        self._records += len(reply.records)
        for record in reply.records:
            stored = pybase64.b64decode(record.data)
            self._bytes += len(stored)
            for data in events(stored):
                origin = self._origin_of(data)
                if origin is not None:
                    self._origins.add(origin)
