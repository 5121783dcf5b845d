"""A source as long as it is the one that the lease speaks of.

A stream that is deleted and made again under its name has the same shard names, and a place in time, or the beginning,
is as good in one as in the other. What was read from such a place belongs to the lease's incarnation only when the
source still is that one afterwards; behind a sequence number nothing of another incarnation can be read.
"""

from collections.abc import Sequence

from replicator.core.model import After, Position, Shard, ShardId
from replicator.errors import Fenced, PositionLost
from replicator.ports import Cursor, Page, Source, SourceInfo


class OneIncarnation:
    """Implements `ports.Source`; reading raises Fenced once the source has another creation time."""

    def __init__(self, source: Source, incarnation: str) -> None:
        self._source = source
        self._incarnation = incarnation

    async def describe(self) -> SourceInfo:
        return await self._source.describe()

    async def shards(self) -> Sequence[Shard]:
        return await self._source.shards()

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        try:
            return await self._source.open(shard, position)
        except PositionLost:
            if not isinstance(position, After):  # the shard is gone: with the stream that it was of, or from it?
                await self._must_be_the_one(shard)
            raise

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        page = await self._source.read(cursor, records_max)
        if page.records and not isinstance(cursor.position, After):
            await self._must_be_the_one(cursor.shard)
        return page

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        return await self._source.is_kept(shard, position)

    async def _must_be_the_one(self, shard: ShardId) -> None:
        found = (await self._source.describe()).incarnation
        if found != self._incarnation:
            raise Fenced(f"the source of {shard} was made anew at {found}, was {self._incarnation}")
