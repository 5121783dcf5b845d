"""Requests and replies of the Kinesis JSON 1.1 protocol, as the service model 2013-12-02 names them.

Only what the endpoint serves. Times are seconds since the epoch, hash keys and sequence numbers decimal text.
"""

from msgspec import UNSET, Struct, UnsetType, field


class KinesisError(Exception):
    """An error reply: ``code`` becomes ``__type``, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> KinesisError:
    return KinesisError("InvalidArgumentException", message)


def not_valid(message: str) -> KinesisError:
    """A breach of the service model's own constraints (lengths and ranges)."""
    return KinesisError("ValidationException", f"1 validation error detected: {message}")


class ErrorReply(Struct, frozen=True):
    type: str = field(name="__type")
    message: str


class Named(Struct, frozen=True, rename="pascal", kw_only=True):
    """A request about one stream, by name or by ARN."""

    stream_name: str | None = None
    stream_arn: str | None = field(name="StreamARN", default=None)

    @property
    def stream_or_none(self) -> str | None:
        if self.stream_name is None and self.stream_arn is not None:
            return self.stream_arn.rpartition("/")[2]
        return self.stream_name

    @property
    def stream(self) -> str:
        name = self.stream_or_none
        if name is None:
            raise invalid("Either StreamName or StreamARN must be given.")
        return name


class CreateStream(Named, frozen=True, kw_only=True):
    shard_count: int = 1


class DeleteStream(Named, frozen=True):
    pass


class DescribeStream(Named, frozen=True, kw_only=True):
    limit: int = 100
    exclusive_start_shard_id: str | None = None


class DescribeStreamSummary(Named, frozen=True):
    pass


class RetentionPeriod(Named, frozen=True, kw_only=True):
    retention_period_hours: int


class ListStreams(Struct, frozen=True, rename="pascal"):
    limit: int = 100
    exclusive_start_stream_name: str | None = None
    next_token: str | None = None


class ShardFilter(Struct, frozen=True, rename="pascal"):
    type: str
    shard_id: str | None = None
    timestamp: float | None = None


class ListShards(Named, frozen=True, kw_only=True):
    next_token: str | None = None
    exclusive_start_shard_id: str | None = None
    max_results: int = 1000
    shard_filter: ShardFilter | None = None


class GetShardIterator(Named, frozen=True, kw_only=True):
    shard_id: str
    shard_iterator_type: str
    starting_sequence_number: str | None = None
    timestamp: float | None = None


class GetRecords(Struct, frozen=True, rename="pascal"):
    shard_iterator: str
    limit: int = 10_000


class PutEntry(Struct, frozen=True, rename="pascal", gc=False):
    """``data`` is the base64 text as received."""

    data: str
    partition_key: str
    explicit_hash_key: str | None = None


class PutRecord(Named, frozen=True, kw_only=True):
    data: str
    partition_key: str
    explicit_hash_key: str | None = None


class PutRecords(Named, frozen=True, kw_only=True):
    records: list[PutEntry]


class SplitShard(Named, frozen=True, kw_only=True):
    shard_to_split: str
    new_starting_hash_key: str


class MergeShards(Named, frozen=True, kw_only=True):
    shard_to_merge: str
    adjacent_shard_to_merge: str


Request = Named | ListStreams | GetRecords


class HashKeyRange(Struct, frozen=True, rename="pascal"):
    starting_hash_key: str
    ending_hash_key: str


class SequenceNumberRange(Struct, frozen=True, rename="pascal"):
    """The end is there for a closed shard only."""

    starting_sequence_number: str
    ending_sequence_number: str | UnsetType = UNSET


class ShardView(Struct, frozen=True, rename="pascal", kw_only=True):
    shard_id: str
    parent_shard_id: str | UnsetType = UNSET
    adjacent_parent_shard_id: str | UnsetType = UNSET
    hash_key_range: HashKeyRange
    sequence_number_range: SequenceNumberRange


class ChildShard(Struct, frozen=True, rename="pascal"):
    shard_id: str
    parent_shards: list[str]
    hash_key_range: HashKeyRange


class ShardLevelMetrics(Struct, frozen=True, rename="pascal"):
    shard_level_metrics: tuple[str, ...] = ()


class StreamModeDetails(Struct, frozen=True, rename="pascal"):
    stream_mode: str = "PROVISIONED"


class StreamSummary(Struct, frozen=True, rename="pascal", kw_only=True):
    stream_name: str
    stream_arn: str = field(name="StreamARN")
    stream_status: str
    stream_mode_details: StreamModeDetails = StreamModeDetails()
    stream_creation_timestamp: float


class StreamDescriptionSummary(StreamSummary, frozen=True, kw_only=True):
    retention_period_hours: int
    enhanced_monitoring: tuple[ShardLevelMetrics, ...] = (ShardLevelMetrics(),)
    encryption_type: str = "NONE"
    open_shard_count: int
    consumer_count: int = 0


class StreamDescription(StreamSummary, frozen=True, kw_only=True):
    shards: list[ShardView]
    has_more_shards: bool
    retention_period_hours: int
    enhanced_monitoring: tuple[ShardLevelMetrics, ...] = (ShardLevelMetrics(),)
    encryption_type: str = "NONE"


class DescribeStreamReply(Struct, frozen=True, rename="pascal"):
    stream_description: StreamDescription


class DescribeStreamSummaryReply(Struct, frozen=True, rename="pascal"):
    stream_description_summary: StreamDescriptionSummary


class ListStreamsReply(Struct, frozen=True, rename="pascal", kw_only=True):
    stream_names: list[str]
    has_more_streams: bool
    next_token: str | UnsetType = UNSET
    stream_summaries: list[StreamSummary]


class ListShardsReply(Struct, frozen=True, rename="pascal"):
    shards: list[ShardView]
    next_token: str | UnsetType = UNSET


class GetShardIteratorReply(Struct, frozen=True, rename="pascal"):
    shard_iterator: str


class StoredRecord(Struct, frozen=True, rename="pascal", gc=False):
    """A record as it is kept and as GetRecords returns it; `gc=False` because it refers to text only."""

    sequence_number: str
    approximate_arrival_timestamp: float
    data: str
    partition_key: str


class GetRecordsReply(Struct, frozen=True, rename="pascal"):
    """Without ``next_shard_iterator``, and with ``child_shards``, at the end of a closed shard."""

    records: list[StoredRecord]
    millis_behind_latest: int
    next_shard_iterator: str | UnsetType = UNSET
    child_shards: list[ChildShard] | UnsetType = UNSET


class PutResult(Struct, frozen=True, rename="pascal", gc=False):
    """Either the first two fields (stored) or the last two (this entry failed)."""

    sequence_number: str | UnsetType = UNSET
    shard_id: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    error_message: str | UnsetType = UNSET


class PutRecordReply(Struct, frozen=True, rename="pascal"):
    shard_id: str
    sequence_number: str


class PutRecordsReply(Struct, frozen=True, rename="pascal"):
    failed_record_count: int
    records: list[PutResult]


class Empty(Struct, frozen=True):
    """CreateStream and the like answer with an empty body; ``{}`` is accepted by every client as well."""


Reply = (
    DescribeStreamReply
    | DescribeStreamSummaryReply
    | ListStreamsReply
    | ListShardsReply
    | GetShardIteratorReply
    | GetRecordsReply
    | PutRecordReply
    | PutRecordsReply
    | Empty
)
