"""The configuration of what is written in a peer."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from replicator.config_base import BucketName, Model, QueueName, RegionName, StreamName, kind_of


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

    def writes_in(self, region: str) -> str:
        """The queue's name there."""
        return self.queues.get(region, self.queue)


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


SINK_KINDS: dict[str, type[Model]] = {"kinesis": KinesisSinkConfig, "sqs": SqsSinkConfig, "s3": S3SinkConfig}

SinkConfig: TypeAlias = Annotated[
    Annotated[KinesisSinkConfig, Tag("kinesis")]
    | Annotated[SqsSinkConfig, Tag("sqs")]
    | Annotated[S3SinkConfig, Tag("s3")],
    Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="a sink is of kind " + " or ".join(SINK_KINDS),
    ),
]
