"""Reading a whole stream from a time on, through resharding, with stated bounds: how a sink finds what it stored.

How it works: every listed shard is read from the time on until the service says that its tip is reached, or to its
end; then the shards are listed again, until no new one appears. So records that went to the children of a shard
that was closed meanwhile are found too.

Why a complete reading proves absence: what was stored before it began lies in a shard that was listed, before the
tip. A bound that was hit is said, never hidden.
"""

import asyncio
from collections.abc import Callable

import pybase64
from msgspec import Struct

from replicator.aws.kinesis_api import GET_RECORDS_MAX, GetRecordsReply, KinesisApi
from replicator.core.kpl import events
from replicator.core.model import AtTimestamp, Origin, ShardId
from replicator.errors import TransientError
from replicator.ports import Found

PAGES_AT_ONCE = 2
"""Answers of up to 10 MiB (30 MiB while decoded) that are in memory together."""


class Bounds(Struct, frozen=True):
    """``interval_s``: the least time between two GetRecords on one shard, whose consumers share five a second."""

    records_max: int
    time_max_s: float
    interval_s: float


class Reading:
    """One reading; `run` it once. Raises TransientError, Misconfigured or ServiceError."""

    def __init__(
        self, api: KinesisApi, since_ms: int, origin_of: Callable[[bytes], Origin | None], bounds: Bounds
    ) -> None:
        self._api = api
        self._since_ms = since_ms
        self._origin_of = origin_of
        self._bounds = bounds
        self._until_s = asyncio.get_running_loop().time() + bounds.time_max_s
        self._slots = asyncio.Semaphore(PAGES_AT_ONCE)
        self._origins: set[Origin] = set()
        self._records = 0
        self._is_cut = False

    async def run(self) -> Found:
        seen: set[ShardId] = set()
        while not self._is_cut:
            fresh = [shard.id for shard in await self._api.shards() if shard.id not in seen]
            if not fresh:
                break
            seen.update(fresh)
            await self._read_all(fresh)
        return Found(frozenset(self._origins), not self._is_cut, self._records)

    async def _read_all(self, shards: list[ShardId]) -> None:
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
            if self._is_over():
                self._is_cut = True
                return
            reply = await self._page(token)
            if reply is not None:
                token = reply.next_shard_iterator
                if reply.millis_behind_latest == 0:
                    return
            if token is not None:
                await asyncio.sleep(self._bounds.interval_s)

    def _is_over(self) -> bool:
        is_late = asyncio.get_running_loop().time() > self._until_s
        return self._is_cut or is_late or self._records >= self._bounds.records_max

    async def _start(self, shard: ShardId) -> str:
        async with self._slots:
            return await self._api.iterator(shard, AtTimestamp(self._since_ms))

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
            for data in events(pybase64.b64decode(record.data)):
                origin = self._origin_of(data)
                if origin is not None:
                    self._origins.add(origin)
