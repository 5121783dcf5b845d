"""A Kinesis stream as a source.

What AWS does not say: a sequence number whose record was trimmed is accepted, and reading silently begins at the
oldest record kept. `read` can't raise PositionLost for it; `is_kept` tells when nothing can have been lost.
"""

from collections.abc import Sequence

from pybase64 import b64decode

from replicator.aws.kinesis_api import GetRecordsReply, KinesisApi
from replicator.aws.transport import ServiceError
from replicator.core.model import After, Position, Record, Shard, ShardEnd, ShardId
from replicator.errors import Misconfigured, PositionLost, TransientError
from replicator.ports import Cursor, Page, SourceInfo

HOUR_MS = 3_600_000
NOT_FOUND = "ResourceNotFoundException"
STALE_ITERATOR = frozenset({"ExpiredIteratorException", "InvalidArgumentException"})
"""Expired after five minutes, or made by a stream that was deleted since."""
EMPTY_PAGES_MAX = 20


class KinesisSource:
    """Implements `ports.Source`."""

    def __init__(self, api: KinesisApi) -> None:
        self._api = api

    async def describe(self) -> SourceInfo:
        try:
            summary, _ = await self._api.summary()
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        created_ms = round(summary.stream_creation_timestamp * 1000)
        return SourceInfo(str(created_ms), summary.retention_period_hours * HOUR_MS)

    async def shards(self) -> Sequence[Shard]:
        try:
            return await self._api.shards()
        except ServiceError as exc:
            raise self._not_served(exc) from exc

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        try:
            return Cursor(shard, position, await self._api.iterator(shard, position))
        except ServiceError as exc:
            if isinstance(position, After):
                raise PositionLost(f"{self._api.stream}/{shard} has no position {position}: {exc}") from exc
            # A time ahead of the service's clock is refused; it will be in the past soon.
            raise TransientError(f"{self._api.stream}/{shard}: {exc}", code=exc.code) from exc
        except Misconfigured as exc:
            await self._raise_if_gone(shard, exc)
            raise

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        try:
            reply = await self._api.get_records(cursor.token, records_max)
        except ServiceError as exc:
            if exc.code not in STALE_ITERATOR:
                raise self._not_served(exc) from exc
            reply = await self._renewed(cursor, records_max)
        except Misconfigured as exc:
            await self._raise_if_gone(cursor.shard, exc)
            raise
        try:
            return _page(cursor, reply)
        except ValueError as exc:  # base64's error is one
            raise TransientError(f"an answer of {self._api.stream} can't be read: {exc}", code="bad_reply") from exc

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Whether the record of this number is still there: then nothing behind it was trimmed.

        False proves nothing by itself, because nothing may have been written since. Costs one GetRecords, rarely
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
        return False

    async def _renewed(self, cursor: Cursor, records_max: int) -> GetRecordsReply:
        fresh = await self.open(cursor.shard, cursor.position)
        try:
            return await self._api.get_records(fresh.token, records_max)
        except ServiceError as exc:
            message = f"{self._api.stream}: a new iterator is refused: {exc}"
            raise TransientError(message, code=exc.code) from exc

    async def _raise_if_gone(self, shard: ShardId, exc: Misconfigured) -> None:
        """A shard whose last record was trimmed is not found, and neither is a stream: only the first is lost."""
        if exc.code == NOT_FOUND and all(listed.id != shard for listed in await self.shards()):
            raise PositionLost(f"{self._api.stream} no longer has the shard {shard}") from exc

    def _not_served(self, exc: ServiceError) -> Misconfigured:
        return Misconfigured(f"{self._api.stream}: {exc}; check the stream's name", code=exc.code)


def _page(cursor: Cursor, reply: GetRecordsReply) -> Page:
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
