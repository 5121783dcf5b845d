"""The configuration of what is written in a peer."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from replicator.aws.sqs_api import MESSAGE_BYTES_MAX
from replicator.config_base import Model, QueueName, RegionName, StreamName, kind_of


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


SINK_KINDS: dict[str, type[Model]] = {"kinesis": KinesisSinkConfig, "sqs": SqsSinkConfig}

SinkConfig: TypeAlias = Annotated[
    Annotated[KinesisSinkConfig, Tag("kinesis")] | Annotated[SqsSinkConfig, Tag("sqs")],
    Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="a sink is of kind " + " or ".join(SINK_KINDS),
    ),
]
