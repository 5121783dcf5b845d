"""A Kinesis stream as a source."""

from collections.abc import Sequence

import pybase64

from replicator.aws.kinesis_api import GetRecordsReply, KinesisApi, RecordReply
from replicator.aws.transport import ServiceError
from replicator.core.model import After, Position, Record, SequenceNumber, Shard, ShardId
from replicator.errors import Misconfigured, PositionLost, TransientError
from replicator.ports import Cursor, Page, SourceInfo

HOUR_MS = 3_600_000


class KinesisSource:
    """Implements `ports.Source`."""

    def __init__(self, api: KinesisApi) -> None:
        self._api = api

    async def describe(self) -> SourceInfo:
        summary, _ = await self._api.summary()
        created_ms = round(summary.stream_creation_timestamp * 1000)
        return SourceInfo(str(created_ms), summary.retention_period_hours * HOUR_MS)

    async def shards(self) -> Sequence[Shard]:
        return await self._api.shards()

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        try:
            return Cursor(shard, position, await self._api.iterator(shard, position))
        except ServiceError as exc:
            if not isinstance(position, After):
                # A time ahead of the service's clock is refused; it will be in the past soon.
                raise TransientError(f"{self._api.stream}/{shard}: {exc}", code=exc.code) from exc
            raise PositionLost(f"{self._api.stream}/{shard} has no position {position}: {exc}") from exc

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        try:
            reply = await self._api.get_records(cursor.token, records_max)
        except ServiceError as exc:
            if exc.code != "ExpiredIteratorException":
                raise Misconfigured(f"GetRecords on {self._api.stream}: {exc}", code=exc.code) from exc
            fresh = await self.open(cursor.shard, cursor.position)
            reply = await self._renewed(fresh, records_max)
        return _page(cursor, reply)

    async def _renewed(self, cursor: Cursor, records_max: int) -> GetRecordsReply:
        try:
            return await self._api.get_records(cursor.token, records_max)
        except ServiceError as exc:
            raise TransientError(
                f"{self._api.stream}: a new iterator is refused: {exc}", code=exc.code
            ) from exc


def _page(cursor: Cursor, reply: GetRecordsReply) -> Page:
    records = tuple(map(_record, reply.records))
    position = After(records[-1].sequence) if records else cursor.position
    token = reply.next_shard_iterator
    return Page(records, Cursor(cursor.shard, position, token) if token else None, reply.millis_behind_latest)


def _record(reply: RecordReply) -> Record:
    return Record(
        pybase64.b64decode(reply.data),
        reply.partition_key,
        SequenceNumber(int(reply.sequence_number)),
        int(reply.approximate_arrival_timestamp * 1000),
    )
