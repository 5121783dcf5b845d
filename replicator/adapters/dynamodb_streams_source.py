"""The stream of a DynamoDB table as a source: change records as they were sent, under the key of their item.

What AWS does otherwise than Kinesis: shards close after some hours and have one child; records are kept for 24 hours,
and reading behind what was trimmed is refused; there is no iterator by time; an answer does not say how far behind
the tip it is, so a page without records is taken for the tip.
"""

import time
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from replicator.aws.dynamodb_streams_api import ChangeRecord, DynamoDbStreamsApi, GetRecordsReply, Table, stream_of
from replicator.aws.transport import ServiceError
from replicator.core.model import After, AtTimestamp, Position, Record, Shard, ShardEnd, ShardId
from replicator.errors import Misconfigured, PositionLost, TransientError
from replicator.ports import Cursor, Page, SourceInfo

RETENTION_MS = 24 * 3_600_000
NOT_FOUND = "ResourceNotFoundException"
TRIMMED = "TrimmedDataAccessException"
EXPIRED = "ExpiredIteratorException"
PARTITION_KEY_CHARACTERS_MAX = 256
"""Of Kinesis; a table's hash key may have 2048 bytes."""

_change = msgspec.json.Decoder(ChangeRecord)


class DynamoDbStreamsSource:
    """Implements `ports.Source`.

    ``is_global_ok``: the rules tell changes of other regions apart. ``needs_images``: they look at the images.
    """

    def __init__(self, api: DynamoDbStreamsApi, *, is_global_ok: bool, needs_images: bool) -> None:
        self._api = api
        self._is_global_ok = is_global_ok
        self._needs_images = needs_images
        self._stream = ""
        self._hash_key = ""

    async def describe(self) -> SourceInfo:
        try:
            table = await self._api.describe_table()
            self._check(table)
            stream = stream_of(self._api.table, table, needs_images=self._needs_images)
            created_ms = await self._api.created_ms(stream)
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        self._stream, self._hash_key = stream, table.hash_key
        return SourceInfo(str(created_ms), RETENTION_MS)

    def _check(self, table: Table) -> None:
        if table.replicas and not self._is_global_ok:
            others = ", ".join(sorted(replica.region_name for replica in table.replicas))
            raise Misconfigured(
                f"table {self._api.table} is a global table with {others}, so every region would tell each change; "
                "set written_here to stamp or attribute",
                code="global_table",
            )

    async def shards(self) -> Sequence[Shard]:
        try:
            return await self._api.shards(await self._arn())
        except ServiceError as exc:
            raise self._not_served(exc) from exc

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        try:
            return Cursor(shard, position, await self._api.iterator(await self._arn(), shard, position))
        except ServiceError as exc:
            if isinstance(position, After):
                raise PositionLost(f"{self._api.table}/{shard} has no position {position}: {exc}") from exc
            raise TransientError(f"{self._api.table}/{shard}: {exc}", code=exc.code) from exc
        except Misconfigured as exc:
            await self._raise_if_gone(shard, exc)
            raise

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        try:
            reply = await self._api.get_records(cursor.token, records_max)
        except ServiceError as exc:
            reply = await self._renewed(cursor, records_max, exc)
        except Misconfigured as exc:
            await self._raise_if_gone(cursor.shard, exc)
            raise
        try:
            return self._page(cursor, reply)
        except (msgspec.DecodeError, ValueError, KeyError, OverflowError) as exc:
            raise TransientError(f"an answer for {self._api.table} can't be read: {exc}", code="bad_reply") from exc

    async def _renewed(self, cursor: Cursor, records_max: int, exc: ServiceError) -> GetRecordsReply:
        """The answer to a new iterator at the same place, where the old one had expired."""
        if exc.code == TRIMMED:
            raise PositionLost(f"{self._api.table}/{cursor.shard}: {exc}") from exc
        if exc.code != EXPIRED:
            raise self._not_served(exc) from exc
        fresh = await self.open(cursor.shard, cursor.position)
        try:
            return await self._api.get_records(fresh.token, records_max)
        except ServiceError as again:
            if again.code == TRIMMED:
                raise PositionLost(f"{self._api.table}/{cursor.shard}: {again}") from again
            message = f"{self._api.table}: a new iterator is refused: {again}"
            raise TransientError(message, code=again.code) from again

    async def _arn(self) -> str:
        if not self._stream:
            await self.describe()
        return self._stream

    async def _raise_if_gone(self, shard: ShardId, exc: Misconfigured) -> None:
        """A shard that was trimmed away is not found, and neither is a stream: only the first is lost."""
        if exc.code == NOT_FOUND and all(listed.id != shard for listed in await self.shards()):
            raise PositionLost(f"the stream of {self._api.table} no longer has the shard {shard}") from exc

    def _not_served(self, exc: ServiceError) -> Misconfigured:
        return Misconfigured(f"{self._api.table}: {exc}; check the table's name", code=exc.code)

    def _page(self, cursor: Cursor, reply: GetRecordsReply) -> Page:
        records = [self._record(bytes(raw)) for raw in reply.records]
        behind_ms = max(1, int(time.time() * 1000) - records[-1].arrival_ms) if records else 0
        if isinstance(cursor.position, AtTimestamp):
            # Times of creation are rounded down to the second.
            since_ms = cursor.position.ms // 1000 * 1000
            records = [record for record in records if record.arrival_ms >= since_ms]
        position = After(records[-1].sequence) if records else cursor.position
        token = reply.next_shard_iterator
        return Page(tuple(records), Cursor(cursor.shard, position, token) if token else None, behind_ms)

    def _record(self, data: bytes) -> Record:
        change = _change.decode(data).dynamodb
        created_ms = round(change.approximate_creation_date_time * 1000)
        return Record(data, _key_text(change.keys[self._hash_key]), str(int(change.sequence_number)), created_ms)


def _key_text(value: dict[str, str]) -> str:
    """The value of an item's hash key as a partition key; one that is too long goes by its digest."""
    [text] = value.values()
    if len(text) <= PARTITION_KEY_CHARACTERS_MAX:
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
