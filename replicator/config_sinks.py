"""The configuration of what is written in a peer."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, field_validator

from replicator.config_base import BucketName, BusName, Model, QueueName, RegionName, StreamName, kind_of
from replicator.core.bus_entries import (
    DETAIL_TYPE_CHARACTERS_MAX,
    REQUEST_BYTES_MAX,
    RESERVED_SOURCE,
    SOURCE_CHARACTERS_MAX,
)
from replicator.core.queue_messages import MESSAGE_BYTES_MAX


class KinesisSinkConfig(Model):
    """A stream. ``can_verify``: what is in doubt can be read back from it."""

    can_verify: ClassVar[bool] = True

    kind: Literal["kinesis"] = "kinesis"
    stream: StreamName
    streams: dict[RegionName, StreamName] = Field({}, description="Regions where the stream has another name")
    record_bytes_max: int = Field(1024 * 1024, ge=1024, le=10 * 1024 * 1024)

    def writes_in(self, region: str) -> str:
        """The stream's name there."""
        return self.streams.get(region, self.stream)


class SqsSinkConfig(Model):
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


class EventBridgeSinkConfig(Model):
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


class S3SinkConfig(Model):
    """An event lake: a prefix in a bucket of each region, for what `lake` of a hub names."""

    can_verify: ClassVar[bool] = False

    kind: Literal["s3"]
    bucket: BucketName
    buckets: dict[RegionName, BucketName] = Field({}, description="Regions where the bucket has another name")
    prefix: str = Field("lake/", max_length=512, description="What the names of all objects begin with")
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
    "s3": S3SinkConfig,
}

SinkConfig: TypeAlias = Annotated[
    Annotated[KinesisSinkConfig, Tag("kinesis")]
    | Annotated[SqsSinkConfig, Tag("sqs")]
    | Annotated[EventBridgeSinkConfig, Tag("eventbridge")]
    | Annotated[S3SinkConfig, Tag("s3")],
    Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="a sink is of kind kinesis, sqs or eventbridge",
    ),
]
