"""AWS Database Migration Service with a Kinesis stream as its target: rows as JSON, and control records between them.

How it works: the record's ``data`` becomes the new image (the old one of a deletion), the before image the old one,
byte for byte. Records of control tables and schemas are no changes of rows and are dropped, unless they are asked for.
Facts: AWS DMS User Guide, "Using Amazon Kinesis Data Streams as a target", and "Before image task settings".

Why nothing is lost: a record has no id of its own. With ``IncludeTransactionDetails`` it has a place: transaction,
number in the transaction, position in the log; then an event goes by that, and what DMS tells again after a restart is
recognised. Without, two equal changes would be one, so each record is an event of its own, by its origin. DMS's own
``timestamp`` is when it wrote the record, so with the details the time is that of the commit.
"""

from typing import Literal, cast

import msgspec
from msgspec import Raw, Struct

from replicator.core.cdc_event import NULL, RowChange, image, kind, present, row_event, time_ms
from replicator.core.formats import Decoded, JsonFormat
from replicator.core.model import Region
from replicator.core.skim import PLAIN_HEAD, skim_nothing
from replicator.errors import PoisonEvent

VERBS = {"load": "loaded", "insert": "created", "update": "updated", "delete": "deleted"}
CONTROL = "control_record"


class _Metadata(Struct, rename="kebab"):
    timestamp: str
    record_type: Literal["data", "control"]
    operation: str
    schema_name: str = ""
    table_name: str = ""
    commit_timestamp: str = ""
    transaction_id: Raw = Raw()
    transaction_record_id: Raw = Raw()
    stream_position: Raw = Raw()


class _Record(Struct):
    metadata: _Metadata
    data: Raw
    before: Raw
    control: Raw


class DmsFormat:
    """Implements `core.formats.Format`. ``before_field``: the name that the task gives before images (`FieldName`)."""

    def __init__(self, here: Region, *, before_field: str, control: Literal["drop", "forward"]) -> None:
        shape = msgspec.defstruct(
            "DmsRecord",
            [
                ("metadata", _Metadata),
                ("data", Raw, Raw()),
                ("before", Raw, msgspec.field(name=before_field, default=Raw())),
                ("control", Raw, Raw()),
            ],
        )
        self._decoder = msgspec.json.Decoder(cast("type[_Record]", shape))
        self._here = here
        self._control = control
        self._events = JsonFormat("id")
        self.skim = skim_nothing

    def decode(self, data: bytes) -> Decoded:
        if data.startswith(PLAIN_HEAD):
            return self._events.decode(data)
        try:
            record = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise PoisonEvent("bad_change", f"no record of DMS: {exc}") from exc
        if record.metadata.record_type == "data":
            return self._row(record)
        if self._control == "drop":
            return Decoded(None, None, b"", b"", drop=CONTROL)
        return self._told(record, record.metadata.operation, {"control": image(record.control, "control")})

    def _row(self, record: _Record) -> Decoded:
        operation = record.metadata.operation
        verb = VERBS.get(operation)
        if verb is None:
            raise PoisonEvent("bad_change", f"{operation[:40]!r} is no operation on a row: {', '.join(VERBS)}")
        row, before = image(record.data, "data"), image(record.before, "the before image")
        if bytes(row) == b"null":
            raise PoisonEvent("bad_change", "a record of a row has no data")
        images = {"new": NULL, "old": row} if operation == "delete" else {"new": row, "old": before}
        return self._told(record, verb, images)

    def _told(self, record: _Record, verb: str, raw: dict[str, Raw]) -> Decoded:
        metadata = record.metadata
        place = present(
            {
                "transaction-id": metadata.transaction_id,
                "transaction-record-id": metadata.transaction_record_id,
                "stream-position": metadata.stream_position,
            }
        )
        change = RowChange(
            kind=kind(metadata.table_name, verb),
            timestamp_ms=time_ms(metadata.commit_timestamp or metadata.timestamp),
            tags={"region": self._here, "table": metadata.table_name, "schema": metadata.schema_name},
            raw=raw,
            place=place,
        )
        return row_event(change, is_place_unique=len(place) == 3 and metadata.commit_timestamp != "")
