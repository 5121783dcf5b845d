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
from replicator.aws.kinesis_api import PARTITION_KEY_CHARACTERS_MAX
from replicator.aws.shard_iterators import IteratorSource
from replicator.aws.transport import ServiceError
from replicator.core.model import After, AtTimestamp, Position, Record, Shard, ShardId
from replicator.errors import Misconfigured
from replicator.ports import Cursor, Page, SourceInfo

RETENTION_MS = 24 * 3_600_000
STALE_ITERATOR = frozenset({"ExpiredIteratorException"})

_change = msgspec.json.Decoder(ChangeRecord)


class DynamoDbStreamsSource(IteratorSource[GetRecordsReply]):
    """Implements `ports.Source`.

    ``is_global_ok``: the rules tell changes of other regions apart. ``needs_images``: they look at the images.
    """

    def __init__(self, api: DynamoDbStreamsApi, *, is_global_ok: bool, needs_images: bool) -> None:
        super().__init__(name=api.table, kind="table", stale=STALE_ITERATOR)
        self._api = api
        self._is_global_ok = is_global_ok
        self._needs_images = needs_images
        self._stream = ""
        self._created_ms = 0
        self._hash_key = ""

    async def describe(self) -> SourceInfo:
        try:
            table = await self._api.describe_table()
            self._check(table)
            stream = stream_of(self._api.table, table, needs_images=self._needs_images)
            if stream != self._stream:
                self._created_ms = await self._api.created_ms(stream)
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        self._stream, self._hash_key = stream, table.hash_key
        return SourceInfo(str(self._created_ms), RETENTION_MS)

    async def _arn(self) -> str:
        if not self._stream:
            await self.describe()
        return self._stream

    async def _listed(self) -> Sequence[Shard]:
        return await self._api.shards(await self._arn())

    async def _iterator(self, shard: ShardId, position: Position) -> str:
        return await self._api.iterator(await self._arn(), shard, position)

    async def _get_records(self, token: str, limit: int) -> GetRecordsReply:
        return await self._api.get_records(token, limit)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Reading behind what was trimmed is refused, so nothing is passed over in silence."""
        del shard, position
        return True

    def _check(self, table: Table) -> None:
        if table.replicas and not self._is_global_ok:
            others = ", ".join(sorted(replica.region_name for replica in table.replicas))
            raise Misconfigured(
                f"table {self._api.table} is a global table with {others}, so every region would tell each change; "
                "set written_here to stamp or attribute",
                code="global_table",
            )

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
    """The value of an item's hash key, of up to 2048 bytes, as a partition key; one too long goes by its digest."""
    [text] = value.values()
    if len(text) <= PARTITION_KEY_CHARACTERS_MAX:
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
