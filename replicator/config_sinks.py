"""The configuration of what is written in a peer."""

from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from replicator.config_base import (
    AttributeName,
    BucketName,
    BusName,
    FieldError,
    Model,
    Name,
    QueueName,
    RegionName,
    StreamName,
    TableName,
    kind_of,
)
from replicator.core.bus_entries import (
    DETAIL_TYPE_CHARACTERS_MAX,
    REQUEST_BYTES_MAX,
    RESERVED_SOURCE,
    SOURCE_CHARACTERS_MAX,
)
from replicator.core.convergence import Rule
from replicator.core.model import Region
from replicator.core.queue_messages import MESSAGE_BYTES_MAX
from replicator.core.table_changes import TableRules

DAY_S = 86_400


class ClaimCheckConfig(Model):
    """Where the bodies of events go that are too large for the sink: a prefix in a bucket of the peer's region."""

    bucket: BucketName
    buckets: dict[RegionName, BucketName] = Field({}, description="Regions where the bucket has another name")
    prefix: str = Field("claim-checks/", max_length=512, description="What the names of all bodies begin with")

    def writes_in(self, region: str) -> str:
        """The bucket's name there."""
        return self.buckets.get(region, self.bucket)


class _Limited(Model):
    """What all sinks have that take events up to a size."""

    claim_check: ClaimCheckConfig | None = Field(
        None, description="Larger events leave their body in S3, and a pointer goes; without, they go to quarantine"
    )


class KinesisSinkConfig(_Limited):
    """A stream. ``can_verify``: what is in doubt can be read back from it."""

    can_verify: ClassVar[bool] = True

    kind: Literal["kinesis"] = "kinesis"
    stream: StreamName
    streams: dict[RegionName, StreamName] = Field({}, description="Regions where the stream has another name")
    record_bytes_max: int = Field(1024 * 1024, ge=1024, le=10 * 1024 * 1024)

    def writes_in(self, region: str) -> str:
        """The stream's name there."""
        return self.streams.get(region, self.stream)


class SqsSinkConfig(_Limited):
    """A queue, standard or FIFO."""

    can_verify: ClassVar[bool] = False

    kind: Literal["sqs"]
    queue: QueueName
    queues: dict[RegionName, QueueName] = Field({}, description="Regions where the queue has another name")
    message_bytes_max: int = Field(
        MESSAGE_BYTES_MAX, ge=1024, le=1024 * 1024, description="Of a message, and of all in a request together"
    )

    def writes_in(self, region: str) -> str:
        """The queue's name there."""
        return self.queues.get(region, self.queue)


class EventBridgeSinkConfig(_Limited):
    """A bus."""

    can_verify: ClassVar[bool] = False

    kind: Literal["eventbridge"]
    bus: BusName
    buses: dict[RegionName, BusName] = Field({}, description="Regions where the bus has another name")
    source: str = Field(
        "replicator",
        min_length=1,
        max_length=SOURCE_CHARACTERS_MAX,
        description="Of events that did not come from a bus; those that did keep their own",
    )
    detail_type: str | None = Field(
        None,
        min_length=1,
        max_length=DETAIL_TYPE_CHARACTERS_MAX,
        description="Of events without a type; they go to quarantine where it is not given",
    )
    request_bytes_max: int = Field(
        REQUEST_BYTES_MAX, ge=1024, le=1024 * 1024, description="Of all entries of a request together, as AWS counts"
    )

    @field_validator("source")
    @classmethod
    def _ours(cls, source: str) -> str:
        if source.startswith(RESERVED_SOURCE):
            raise ValueError(
                f"only AWS itself may put events whose source begins with {RESERVED_SOURCE}; choose another"
            )
        return source

    def writes_in(self, region: str) -> str:
        """The bus's name there."""
        return self.buses.get(region, self.bus)


class DynamoDbSinkConfig(Model):
    """A table, kept equal to the tables of the other regions by the changes that change capture tells of them."""

    can_verify: ClassVar[bool] = False

    kind: Literal["dynamodb"]
    table: TableName
    tables: dict[RegionName, TableName] = Field({}, description="Regions where the table has another name")
    changes_of: Name | None = Field(
        None, description="The source whose changes are applied, where a hub holds other events too"
    )
    version_attribute: AttributeName = Field("version", description="Attribute with the version that writers give")
    ordered_by: list[AttributeName] = Field(
        [], description="In place of the version: attributes that order an item's writes, the first before the others"
    )
    region_attribute: AttributeName = Field("awsregion", description="Attribute with the writer's region")
    deleted_attribute: AttributeName = Field("deleted", description="True in tombstones")
    expires_attribute: AttributeName = Field("expires", description="The table's attribute for time to live")
    lag_max_s: float = Field(
        2 * DAY_S,
        ge=2 * DAY_S,
        description="How old a change may be when it arrives: what the table's stream and the hub keep together",
    )
    replay_horizon_s: float = Field(0, ge=0, description="How far back changes are replayed or redriven")
    tombstones_s: float = Field(14 * DAY_S, description="How long tombstones stay; longer than both together")

    @model_validator(mode="after")
    def _outlived(self) -> Self:
        least_s = self.lag_max_s + self.replay_horizon_s
        if self.tombstones_s <= least_s:
            raise FieldError(
                "tombstones_s",
                f"tombstones_s ({self.tombstones_s:g}) must be more than lag_max_s and replay_horizon_s together "
                f"({least_s:g}), or what is on its way outlives them and brings deleted items back",
            )
        return self

    def writes_in(self, region: str) -> str:
        """The table's name there."""
        return self.tables.get(region, self.table)

    @property
    def decided_by(self) -> list[str]:
        """What every write makes greater."""
        return self.ordered_by or [self.version_attribute]

    def rules(self, here: Region) -> TableRules:
        rule = Rule(
            version=self.version_attribute,
            order=tuple(self.ordered_by),
            region=self.region_attribute,
            deleted=self.deleted_attribute,
            expires=self.expires_attribute,
        )
        return TableRules(self.writes_in(here), here, rule, round(self.tombstones_s * 1000))


class S3SinkConfig(Model):
    """An event lake: a prefix in a bucket of each region, for what `lake` of a hub names."""

    can_verify: ClassVar[bool] = False

    kind: Literal["s3"]
    bucket: BucketName
    buckets: dict[RegionName, BucketName] = Field({}, description="Regions where the bucket has another name")
    prefix: str = Field("lake/", max_length=512, description="What the names of all objects begin with")
    format: Literal["ndjson", "parquet"] = Field(
        "ndjson", description="Of objects written from now on; both are read. parquet needs the extra of this name"
    )
    linger_s: float = Field(10, ge=0, le=300, description="How long events wait for a fuller object")
    object_bytes_max: int = Field(
        8 * 1024 * 1024, ge=64 * 1024, le=256 * 1024 * 1024, description="Of one object, before it is compressed"
    )

    def writes_in(self, region: str) -> str:
        """The bucket's name there."""
        return self.buckets.get(region, self.bucket)


SINK_KINDS: dict[str, type[Model]] = {
    "kinesis": KinesisSinkConfig,
    "sqs": SqsSinkConfig,
    "eventbridge": EventBridgeSinkConfig,
    "dynamodb": DynamoDbSinkConfig,
    "s3": S3SinkConfig,
}

SinkConfig: TypeAlias = Annotated[
    Annotated[KinesisSinkConfig, Tag("kinesis")]
    | Annotated[SqsSinkConfig, Tag("sqs")]
    | Annotated[EventBridgeSinkConfig, Tag("eventbridge")]
    | Annotated[DynamoDbSinkConfig, Tag("dynamodb")]
    | Annotated[S3SinkConfig, Tag("s3")],
    Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="a sink is of kind kinesis, sqs, eventbridge or dynamodb",
    ),
]
