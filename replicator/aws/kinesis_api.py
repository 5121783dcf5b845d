"""What source and sink share of Kinesis: limits, the calls, and what they answer."""

import msgspec
from msgspec import Struct

from replicator.aws.transport import JsonApi, Reply, decoded
from replicator.core.model import After, AtTimestamp, Position, Shard, ShardEnd, ShardId, TrimHorizon

SERVICE = "kinesis"
PREFIX = "Kinesis_20131202"

# Limits, conservative: AWS raises them now and then, and the adapters' arguments with them.
# Source: Kinesis Data Streams Developer Guide, "Quotas and limits", and the API reference of the call named.
PUT_RECORDS_MAX = 500
"""PutRecords: records of one request."""
PUT_REQUEST_BYTES_MAX = 5 * 1024 * 1024
"""PutRecords: data and partition keys of one request. Newer pages of AWS say 10 MiB."""
RECORD_BYTES_MAX = 1024 * 1024
"""PutRecords: data and partition key of one record. A stream can be raised to 10 MiB."""
PARTITION_KEY_CHARACTERS_MAX = 256
"""PutRecords: of one partition key."""
GET_RECORDS_MAX = 10_000
"""GetRecords: records of one answer, which holds 10 MiB at most; 5 calls and 2 MB a second a shard."""


class RecordReply(Struct, rename="pascal", gc=False):
    """``gc=False``: it holds text and a number only, and there are thousands."""

    sequence_number: str
    data: str
    partition_key: str
    approximate_arrival_timestamp: float


class _HashKeyRange(Struct, rename="pascal"):
    starting_hash_key: str
    ending_hash_key: str

    @property
    def bounds(self) -> tuple[int, int]:
        return int(self.starting_hash_key), int(self.ending_hash_key)


class ChildReply(Struct, rename="pascal"):
    shard_id: str
    parent_shards: list[str]
    hash_key_range: _HashKeyRange

    def shard(self) -> Shard:
        return Shard(ShardId(self.shard_id), tuple(map(ShardId, self.parent_shards)), self.hash_key_range.bounds)


class GetRecordsReply(Struct, rename="pascal"):
    """At the end of a closed shard without ``next_shard_iterator``, and with ``child_shards``."""

    records: list[RecordReply]
    next_shard_iterator: str | None = None
    millis_behind_latest: int = 0
    child_shards: list[ChildReply] = []


class _ShardReply(Struct, rename="pascal"):
    shard_id: str
    hash_key_range: _HashKeyRange
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None


class _ListShardsReply(Struct, rename="pascal"):
    shards: list[_ShardReply]
    next_token: str | None = None


class _IteratorReply(Struct, rename="pascal"):
    shard_iterator: str


class Summary(Struct, rename="pascal"):
    stream_creation_timestamp: float
    retention_period_hours: int


class _SummaryReply(Struct, rename="pascal"):
    stream_description_summary: Summary


_get_records = msgspec.json.Decoder(GetRecordsReply)
_list_shards = msgspec.json.Decoder(_ListShardsReply)
_iterator = msgspec.json.Decoder(_IteratorReply)
_summary = msgspec.json.Decoder(_SummaryReply)


class KinesisApi:
    """The calls on one stream. Each raises TransientError, Misconfigured or ServiceError."""

    def __init__(self, api: JsonApi, stream: str, timeout_s: float) -> None:
        self.stream = stream
        self._api = api
        self._timeout_s = timeout_s

    async def put_records(self, body: bytes, signed_ms: int | None = None, sha256: str | None = None) -> Reply:
        """The one write, dated ``signed_ms`` (now by default); raises InDoubt as well."""
        signed_s = None if signed_ms is None else signed_ms / 1000
        return await self._api.call(
            "PutRecords", body, is_write=True, timeout_s=self._timeout_s, signed_s=signed_s, sha256=sha256
        )

    async def summary(self, signed_ms: int | None = None) -> tuple[Summary, Reply]:
        """``signed_ms`` dates the request (now by default): TransientError with code ``late`` when it had expired."""
        reply = await self._read("DescribeStreamSummary", {"StreamName": self.stream}, signed_ms)
        return decoded(_summary, reply, "Kinesis").stream_description_summary, reply

    async def shards(self) -> list[Shard]:
        found: list[Shard] = []
        request: dict[str, object] = {"StreamName": self.stream}
        while True:
            page = decoded(_list_shards, await self._read("ListShards", request), "Kinesis")
            found.extend(map(_shard, page.shards))
            if not page.next_token:
                return found
            request = {"NextToken": page.next_token}

    async def iterator(self, shard: ShardId, position: Position, *, is_inclusive: bool = False) -> str:
        """``is_inclusive``: begin at the record of the position's sequence number instead of behind it."""
        request = {"StreamName": self.stream, "ShardId": shard, **_iterator_type(position)}
        if is_inclusive:
            request["ShardIteratorType"] = "AT_SEQUENCE_NUMBER"
        return decoded(_iterator, await self._read("GetShardIterator", request), "Kinesis").shard_iterator

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        request = {"ShardIterator": token, "Limit": min(limit, GET_RECORDS_MAX)}
        return decoded(_get_records, await self._read("GetRecords", request), "Kinesis")

    async def _read(self, operation: str, request: dict[str, object], signed_ms: int | None = None) -> Reply:
        body = msgspec.json.encode(request)
        signed_s = None if signed_ms is None else signed_ms / 1000
        return await self._api.call(operation, body, is_write=False, timeout_s=self._timeout_s, signed_s=signed_s)


def _shard(reply: _ShardReply) -> Shard:
    parents = (reply.parent_shard_id, reply.adjacent_parent_shard_id)
    return Shard(
        ShardId(reply.shard_id),
        tuple(ShardId(parent) for parent in parents if parent),
        reply.hash_key_range.bounds,
    )


def _iterator_type(position: Position) -> dict[str, object]:
    match position:
        case After(sequence=sequence):
            return {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(sequence)}
        case AtTimestamp(ms=ms):
            return {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": ms / 1000}
        case TrimHorizon():
            return {"ShardIteratorType": "TRIM_HORIZON"}
        case ShardEnd():
            raise AssertionError("nothing is read behind the end of a shard")
