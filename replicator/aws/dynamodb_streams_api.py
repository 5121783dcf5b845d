"""The calls of DynamoDB Streams on one table, and what they answer."""

import msgspec
from msgspec import Raw, Struct

from replicator.aws.transport import JsonApi, Reply, decoded
from replicator.core.model import After, Position, Shard, ShardId
from replicator.errors import Misconfigured

SERVICE = "dynamodb"
"""Both APIs are signed for it; they differ in host and prefix."""
TABLE_PREFIX = "DynamoDB_20120810"
STREAMS_PREFIX = "DynamoDBStreams_20120810"
STREAMS_ENDPOINT = "dynamodbstreams"
"""What botocore calls the service whose host this is."""

GET_RECORDS_MAX = 1000
"""GetRecords: records of one answer, which holds 1 MB at most. Source: API reference, "GetRecords"."""


class _StreamSpecification(Struct, rename="pascal", frozen=True):
    stream_enabled: bool = False
    stream_view_type: str = ""


class KeyElement(Struct, rename="pascal"):
    """``key_type`` is HASH or RANGE."""

    attribute_name: str
    key_type: str


class _Replica(Struct, rename="pascal"):
    region_name: str


class Table(Struct, rename="pascal"):
    """Of DescribeTable. ``replicas`` are the other regions of a global table (version 2019)."""

    key_schema: list[KeyElement]
    stream_specification: _StreamSpecification = _StreamSpecification()
    latest_stream_arn: str | None = None
    replicas: list[_Replica] = []

    @property
    def hash_key(self) -> str:
        return next(key.attribute_name for key in self.key_schema if key.key_type == "HASH")


class _TableReply(Struct, rename="pascal"):
    table: Table


class _ShardReply(Struct, rename="pascal"):
    shard_id: str
    parent_shard_id: str | None = None


class Description(Struct, rename="pascal"):
    """One page of DescribeStream. The time is in seconds."""

    creation_request_date_time: float
    shards: list[_ShardReply]
    last_evaluated_shard_id: str | None = None


class _DescriptionReply(Struct, rename="pascal"):
    stream_description: Description


class _IteratorReply(Struct, rename="pascal"):
    shard_iterator: str


class GetRecordsReply(Struct, rename="pascal"):
    """``records`` as they were sent; `ChangeRecord` finds the few fields in them that reading needs."""

    records: list[Raw]
    next_shard_iterator: str | None = None


class _Change(Struct, rename="pascal"):
    sequence_number: str
    approximate_creation_date_time: float
    keys: dict[str, dict[str, str]]


class ChangeRecord(Struct):
    """The time is in seconds, rounded down by the service."""

    dynamodb: _Change


_table = msgspec.json.Decoder(_TableReply)
_description = msgspec.json.Decoder(_DescriptionReply)
_iterator = msgspec.json.Decoder(_IteratorReply)
_get_records = msgspec.json.Decoder(GetRecordsReply)


class DynamoDbStreamsApi:
    """Each call raises TransientError, Misconfigured or ServiceError. ``tables`` and ``streams`` are its two hosts."""

    def __init__(self, tables: JsonApi, streams: JsonApi, table: str, timeout_s: float) -> None:
        self.table = table
        self._tables = tables
        self._streams = streams
        self._timeout_s = timeout_s

    async def describe_table(self) -> Table:
        reply = await self._read(self._tables, "DescribeTable", {"TableName": self.table})
        return decoded(_table, reply, "DynamoDB").table

    async def created_ms(self, stream: str) -> int:
        """When the stream was switched on."""
        page = await self._description({"StreamArn": stream, "Limit": 1})
        return round(page.creation_request_date_time * 1000)

    async def shards(self, stream: str) -> list[Shard]:
        found: list[Shard] = []
        request: dict[str, object] = {"StreamArn": stream}
        while True:
            page = await self._description(request)
            found.extend(map(_shard, page.shards))
            if not page.last_evaluated_shard_id:
                return found
            request["ExclusiveStartShardId"] = page.last_evaluated_shard_id

    async def iterator(self, stream: str, shard: ShardId, position: Position) -> str:
        """There are none by time: such a position, like the trim horizon, begins with the oldest record."""
        request: dict[str, object] = {"StreamArn": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        if isinstance(position, After):
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": str(position.sequence)}
        return decoded(
            _iterator, await self._read(self._streams, "GetShardIterator", request), "DynamoDB"
        ).shard_iterator

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        request = {"ShardIterator": token, "Limit": min(limit, GET_RECORDS_MAX)}
        return decoded(_get_records, await self._read(self._streams, "GetRecords", request), "DynamoDB")

    async def _description(self, request: dict[str, object]) -> Description:
        reply = await self._read(self._streams, "DescribeStream", request)
        return decoded(_description, reply, "DynamoDB").stream_description

    async def _read(self, api: JsonApi, operation: str, request: dict[str, object]) -> Reply:
        return await api.call(operation, msgspec.json.encode(request), is_write=False, timeout_s=self._timeout_s)


def stream_of(table: str, found: Table, *, needs_images: bool) -> str:
    """The ARN of the table's stream. Raises Misconfigured when it has none, or one without images."""
    wanted = f"switch on the stream of table {table} with view type NEW_AND_OLD_IMAGES"
    specification = found.stream_specification
    if found.latest_stream_arn is None or not specification.stream_enabled:
        raise Misconfigured(f"table {table} has no stream; {wanted}", code="no_stream")
    if needs_images and specification.stream_view_type != "NEW_AND_OLD_IMAGES":
        raise Misconfigured(f"its view type is {specification.stream_view_type}; {wanted}", code="no_images")
    return found.latest_stream_arn


def _shard(reply: _ShardReply) -> Shard:
    parents = (ShardId(reply.parent_shard_id),) if reply.parent_shard_id else ()
    return Shard(ShardId(reply.shard_id), parents)
