"""The configuration of what is read: hubs as Kinesis streams, tables by their change streams, queues, and
streams that others fill with change records."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from replicator.config_base import (
    AttributeName,
    FieldError,
    Model,
    Name,
    QueueName,
    RegionName,
    StreamName,
    TableName,
    kind_of,
    time_of,
)
from replicator.core.changes import ChangeRules, Mode, Writer
from replicator.core.formats import FormatName
from replicator.core.messages import Envelope
from replicator.core.model import AtTimestamp, Position, Region, TrimHorizon

DMS_FIELDS = {"before_field", "control"}
DMS_NAMES = ("data", "metadata", "control")
"""Members that a record of DMS has anyway."""


class _Source(Model):
    """What all kinds have."""

    sink: Name = Field(description="The sink that takes this source's events")


class _Log(_Source):
    """A source with places in it."""

    start: str = Field("latest", description="latest, trim_horizon, or a time such as 2026-11-01T00:00:00Z")

    @field_validator("start")
    @classmethod
    def _start(cls, start: str) -> str:
        if start not in {"latest", "trim_horizon"}:
            try:
                time_of(start)
            except ValueError as exc:
                raise ValueError(f"{exc}; or write latest or trim_horizon") from None
        return start

    def start_position(self, now_ms: int) -> Position:
        """`latest` is the time now: a LATEST iterator is no durable place."""
        match self.start:
            case "latest":
                return AtTimestamp(now_ms)
            case "trim_horizon":
                return TrimHorizon()
        return AtTimestamp(int(time_of(self.start).timestamp() * 1000))


class KinesisSourceConfig(_Log):
    """A hub: its events go to the peers."""

    kind: Literal["kinesis"] = "kinesis"
    stream: StreamName
    streams: dict[RegionName, StreamName] = Field({}, description="Regions where the stream has another name")
    format: FormatName = "json"
    event_id_field: str = Field("id", min_length=1, description="Top-level field with the event id (format json)")
    opaque: Literal["refuse", "wrap"] = "refuse"
    records_per_read: int = Field(1000, ge=1, le=10_000)
    lake: Name | None = Field(None, description="The sink of kind s3 that keeps everything this hub holds")
    continue_from: Name | None = Field(
        None, description="The same sink as lake: what the stream no longer keeps for a link is read from there"
    )

    def reads_in(self, region: str) -> str:
        """The stream's name there."""
        return self.streams.get(region, self.stream)


class _Changes(_Log):
    """How the changes of a table of DynamoDB become events."""

    mode: Mode = Field(
        "image", description="image: old and new item; outbox: the item carries the event; raw: the record as it is"
    )
    entity: str | None = Field(None, min_length=1, description="In event types; the table's name by default")
    entity_attribute: AttributeName = Field("discriminator", description="Attribute that names the entity, before both")
    outbox_attribute: AttributeName = Field("event", description="Attribute with the event (mode outbox)")
    written_here: Writer = Field(
        "all", description="How a change is known to be of this region: all are; by attribute; by the writer's stamp"
    )
    region_attribute: AttributeName = Field("awsregion", description="Attribute with the writer's region")
    write_id_attribute: AttributeName = Field("writeid", description="Attribute that every write changes (stamp)")
    hard_deletes: Literal["last_writer", "local"] = Field(
        "last_writer", description="Whose deletions are: of the region that wrote the item last, or all of this one"
    )
    ttl_deletes: Literal["forward", "ignore"] = "forward"
    deleted_attribute: AttributeName = Field("deleted", description="True in items that are deleted softly")
    latch_attribute: AttributeName = Field("latched", description="True in items whose change is not to be told")

    def _rules(self, here: Region, table: str) -> ChangeRules:
        same = set(ChangeRules.__struct_fields__) & type(self).model_fields.keys() - {"table"}
        return ChangeRules(here=here, table=table, **{name: getattr(self, name) for name in same})

    @model_validator(mode="after")
    def _typed(self) -> Self:
        if self.mode == "raw" and self.entity is not None:
            raise FieldError("entity", "mode raw passes records on as they are: there is no type to put an entity in")
        if self.mode != "outbox" and "outbox_attribute" in self.model_fields_set:
            raise FieldError("outbox_attribute", f"it is for mode outbox, and this is {self.mode}; leave it out")
        if self.written_here != "stamp" and "write_id_attribute" in self.model_fields_set:
            told = f"it is for written_here: stamp, and this is {self.written_here}; leave it out"
            raise FieldError("write_id_attribute", told)
        return self


class DynamoDbSourceConfig(_Changes):
    """A table: its changes go, as events, to the region's own hub, and with that to the peers."""

    kind: Literal["dynamodb"]
    table: TableName
    tables: dict[RegionName, TableName] = Field({}, description="Regions where the table has another name")
    regions: list[RegionName] | None = Field(
        None, min_length=1, description="Where the table is; everywhere by default"
    )
    records_per_read: int = Field(1000, ge=1, le=1000)

    def reads_in(self, region: str) -> str:
        """The table's name there."""
        return self.tables.get(region, self.table)

    def is_in(self, region: str) -> bool:
        return self.regions is None or region in self.regions

    def rules(self, here: Region) -> ChangeRules:
        return self._rules(here, self.reads_in(here))


class CdcSourceConfig(_Changes):
    """Change records in a stream: they go, as events, to the region's own hub, and with that to the peers."""

    kind: Literal["cdc"]
    stream: StreamName
    streams: dict[RegionName, StreamName] = Field({}, description="Regions where the stream has another name")
    regions: list[RegionName] | None = Field(
        None, min_length=1, description="Where the stream is; everywhere by default"
    )
    format: Literal["dynamodb", "dms", "debezium"] = Field(
        description="Who writes the stream: Kinesis Data Streams for DynamoDB, AWS DMS, or Debezium Server"
    )
    before_field: str = Field(
        "before-image", min_length=1, max_length=255, description="DMS's FieldName (before images)"
    )
    control: Literal["drop", "forward"] = Field("drop", description="What becomes of DMS's control records")
    records_per_read: int = Field(1000, ge=1, le=10_000)

    @model_validator(mode="after")
    def _of_its_format(self) -> Self:
        theirs = {"dynamodb": _Changes.model_fields.keys() - _Log.model_fields.keys(), "dms": DMS_FIELDS}
        for name, fields in theirs.items():
            for field in type(self).model_fields:
                if field in fields & self.model_fields_set and name != self.format:
                    raise FieldError(field, f"{field} is for format {name}, and this is {self.format}; leave it out")
        if self.before_field in DMS_NAMES:
            raise FieldError("before_field", f"{self.before_field} holds something else in records of DMS")
        return self

    def reads_in(self, region: str) -> str:
        """The stream's name there."""
        return self.streams.get(region, self.stream)

    def is_in(self, region: str) -> bool:
        return self.regions is None or region in self.regions

    def rules(self, here: Region) -> ChangeRules:
        """For format dynamodb, whose records name their table."""
        return self._rules(here, "")


class SqsSourceConfig(_Source):
    """A queue, or a bus whose rule sends to it: messages go, as events, to the region's own hub, and so to peers."""

    kind: Literal["sqs"]
    queue: QueueName
    queues: dict[RegionName, QueueName] = Field({}, description="Regions where the queue has another name")
    regions: list[RegionName] | None = Field(
        None, min_length=1, description="Where the queue is; everywhere by default"
    )
    envelope: Envelope = Field("none", description="eventbridge: what a rule of a bus sends")
    event_id_field: str = Field(
        "", max_length=255, description="The producer's id, members with dots; id, or detail.id in events of a bus"
    )
    partition_key_field: str | None = Field(
        None, min_length=1, description="What orders events, such as detail.orderId; a FIFO queue's group comes first"
    )
    visibility_s: int = Field(60, ge=10, le=43_200, description="How long a lost worker's messages stay unseen")
    wait_s: int = Field(
        2, ge=0, le=20, description="Long polling; 0 is for emulators: AWS may show a full queue as empty"
    )
    records_per_read: int = Field(100, ge=10, le=100)

    def reads_in(self, region: str) -> str:
        """The queue's name there."""
        return self.queues.get(region, self.queue)

    def is_in(self, region: str) -> bool:
        return self.regions is None or region in self.regions

    def start_position(self, _: int) -> Position:
        """A queue has no places."""
        return TrimHorizon()

    @property
    def id_path(self) -> list[str]:
        default = "detail.id" if self.envelope == "eventbridge" else "id"
        return (self.event_id_field or default).split(".")

    @property
    def key_path(self) -> list[str]:
        """Empty where there is none."""
        return self.partition_key_field.split(".") if self.partition_key_field else []


KINDS: dict[str, type[Model]] = {
    "kinesis": KinesisSourceConfig,
    "dynamodb": DynamoDbSourceConfig,
    "sqs": SqsSourceConfig,
    "cdc": CdcSourceConfig,
}


SourceConfig: TypeAlias = Annotated[
    Annotated[KinesisSourceConfig, Tag("kinesis")]
    | Annotated[DynamoDbSourceConfig, Tag("dynamodb")]
    | Annotated[SqsSourceConfig, Tag("sqs")]
    | Annotated[CdcSourceConfig, Tag("cdc")],
    Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="a source is of kind kinesis, dynamodb, sqs or cdc",
    ),
]
