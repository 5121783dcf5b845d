"""A Kinesis stream as a source.

What AWS does not say: a sequence number whose record was trimmed is accepted, and reading silently begins at the
oldest record kept. `read` can't raise PositionLost for it; `is_kept` tells when nothing can have been lost.
"""

from collections.abc import Sequence

from pybase64 import b64decode

from replicator.aws.kinesis_api import GetRecordsReply, KinesisApi
from replicator.aws.shard_iterators import IteratorSource
from replicator.aws.transport import ServiceError
from replicator.core.model import After, Position, Record, Shard, ShardId
from replicator.errors import Misconfigured, PositionLost
from replicator.ports import Cursor, Page, SourceInfo

HOUR_MS = 3_600_000
STALE_ITERATOR = frozenset({"ExpiredIteratorException", "InvalidArgumentException"})
"""Expired after five minutes, or made by a stream that was deleted since."""
EMPTY_PAGES_MAX = 20


class KinesisSource(IteratorSource[GetRecordsReply]):
    """Implements `ports.Source`."""

    def __init__(self, api: KinesisApi) -> None:
        super().__init__(name=api.stream, kind="stream", stale=STALE_ITERATOR)
        self._api = api

    async def _listed(self) -> Sequence[Shard]:
        return await self._api.shards()

    async def _iterator(self, shard: ShardId, position: Position) -> str:
        return await self._api.iterator(shard, position)

    async def _get_records(self, token: str, limit: int) -> GetRecordsReply:
        return await self._api.get_records(token, limit)

    async def describe(self) -> SourceInfo:
        try:
            summary, _ = await self._api.summary()
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        created_ms = round(summary.stream_creation_timestamp * 1000)
        return SourceInfo(str(created_ms), summary.retention_period_hours * HOUR_MS)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Whether the record of this number is still there: then nothing behind it was trimmed.

        False proves nothing by itself: when that record was trimmed, it can't be told whether others behind it were
        trimmed as well or nothing was written for as long. Costs one GetShardIterator and one GetRecords, rarely
        more. Raises as `open`.
        """
        try:
            token: str | None = await self._api.iterator(shard, position, is_inclusive=True)
            for _ in range(EMPTY_PAGES_MAX):
                if token is None:
                    return False
                reply = await self._api.get_records(token, 1)
                if reply.records:
                    return int(reply.records[0].sequence_number) == position.sequence
                if reply.millis_behind_latest == 0:
                    return False
                token = reply.next_shard_iterator
        except ServiceError as exc:
            raise PositionLost(f"{self._api.stream}/{shard} has no position {position}: {exc}") from exc
        except Misconfigured as exc:
            await self._raise_if_gone(shard, exc)
            raise
        return False

    def _page(self, cursor: Cursor, reply: GetRecordsReply) -> Page:
        # One loop without a call of ours: this runs for every record there is. Strict decoding is also the faster one.
        records = tuple(
            [
                Record(
                    b64decode(record.data, None, True),
                    record.partition_key,
                    record.sequence_number,
                    round(record.approximate_arrival_timestamp * 1000),
                )
                for record in reply.records
            ]
        )
        position = After(records[-1].sequence) if records else cursor.position
        token = reply.next_shard_iterator
        return Page(records, Cursor(cursor.shard, position, token) if token else None, reply.millis_behind_latest)
