"""Debezium's change events, as Debezium Server writes them to Kinesis in JSON, with or without their schema.

How it works: the envelope's ``before`` and ``after`` become the old and the new image, byte for byte, and of its
``source`` the place in the database's log is kept. Tombstones, heartbeats, and what Debezium tells of transactions and
of schemas are no changes of rows and are dropped by name. What is left of an event after the transformation
`ExtractNewRecordState` is no envelope any more and is poison. Facts: Debezium Reference, "Change events" of each
connector, "Transaction metadata", and the source of Debezium Server's Kinesis sink, which writes nothing, or ``null``,
for a tombstone.

Why a repeat is recognised: after a restart Debezium tells again what it has not noted as told. An event has nothing in
it that would be new then (``ts_ms`` of the envelope, ``source.sequence``), so it has the same id and bytes.

Why nothing is lost: id and bytes are of place, operation and images together. Rows of a snapshot share their place, so
they go by their origin; so does what has no place. What remains are two rows without a key, equal in all columns,
written by one statement where the log gives both one place (PostgreSQL's COPY): Debezium's transaction metadata tells
them apart.
"""

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from replicator.core.cdc_event import RowChange, image, kind, present, row_event
from replicator.core.formats import Decoded, JsonFormat
from replicator.core.model import Region
from replicator.core.skim import PLAIN_HEAD, skim_nothing
from replicator.errors import PoisonEvent

VERBS = {"c": "created", "u": "updated", "d": "deleted", "r": "loaded", "t": "truncated", "m": "message"}
PLACE = (
    ("lsn", "txId"),  # PostgreSQL
    ("file", "pos", "row", "gtid"),  # MySQL, MariaDB
    ("change_lsn", "commit_lsn", "event_serial_no"),  # SQL Server, Db2
    ("scn", "commit_scn", "rs_id", "ssn", "lcr_position"),  # Oracle
    ("ord", "lsid", "txnNumber"),  # MongoDB; two events of one second differ in ord
)
LOCATING = frozenset({"lsn", "pos", "change_lsn", "scn", "ord"})
"""Without one of these there is no place."""
TIME_MAX_MS = 2**53
TAGS = (("connector", "connector"), ("name", "server"), ("db", "db"), ("schema", "schema"))

_Place = msgspec.defstruct("_Place", [(name, Raw, Raw()) for names in PLACE for name in names])


class _Source(Struct):
    connector: str
    ts_ms: int
    name: str | None = None
    db: str | None = None
    schema: str | None = None
    table: str | None = None
    collection: str | None = None
    snapshot: bool | str | None = None


class _Payload(Struct):
    """Of all kinds of records; which one it is shows in what there is."""

    op: str | None = None
    source: Raw = Raw()
    before: Raw = Raw()
    after: Raw = Raw()
    message: Raw = Raw()
    transaction: Raw = Raw()
    ts_ms: Raw = Raw()
    status: Literal["BEGIN", "END"] | None = None
    id: Raw = Raw()
    ddl: Raw = Raw()
    tableChanges: Raw = Raw()  # noqa: N815 - the vendor's name


class _Wrapped(Struct):
    payload: Raw = Raw()


_wrapped = msgspec.json.Decoder(_Wrapped)
_payloads = msgspec.json.Decoder(_Payload)
_sources = msgspec.json.Decoder(_Source)
_places = msgspec.json.Decoder(_Place)


class DebeziumFormat:
    """Implements `core.formats.Format`."""

    def __init__(self, here: Region) -> None:
        self._here = here
        self._events = JsonFormat("id")
        self.skim = skim_nothing

    def decode(self, data: bytes) -> Decoded:
        if data.startswith(PLAIN_HEAD):
            return self._events.decode(data)
        if data.strip() in (b"", b"null"):
            return _dropped("tombstone")
        try:
            inner = bytes(_wrapped.decode(data).payload) or data
            if inner == b"null":
                return _dropped("tombstone")
            payload = _payloads.decode(inner)
            return _dropped(reason) if (reason := _why_not(payload)) else self._told(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise PoisonEvent("bad_change", f"no change event of Debezium: {exc}") from exc

    def _told(self, payload: _Payload) -> Decoded:
        verb = VERBS.get(payload.op or "")
        if verb is None or not bytes(payload.source):
            what = f"its op is none of {', '.join(VERBS)}, or it has no source"
            raise PoisonEvent("bad_change", f"no change event of Debezium: {what}")
        source = _sources.decode(payload.source)
        if not 0 <= source.ts_ms <= TIME_MAX_MS:
            raise PoisonEvent("bad_change", f"source.ts_ms {source.ts_ms} is no time")
        place = _place(payload)
        table = source.table or source.collection or ""
        tags = {"region": self._here, "table": table}
        change = RowChange(
            kind=kind(table, verb),
            timestamp_ms=source.ts_ms,
            tags=tags | {tag: value for name, tag in TAGS if (value := getattr(source, name))},
            raw=_images(payload),
            place=place,
        )
        is_snapshot = payload.op == "r" or source.snapshot not in (None, False, "false")
        return row_event(change, is_place_unique=not is_snapshot and not LOCATING.isdisjoint(place))


def _why_not(payload: _Payload) -> str | None:
    """The reason to drop what is no change of a row."""
    if payload.op is not None:
        return None
    if bytes(payload.ddl) or bytes(payload.tableChanges):
        return "schema_change"
    if payload.status is not None and bytes(payload.id):
        return "transaction_metadata"
    is_alone = not (bytes(payload.source) or bytes(payload.before) or bytes(payload.after) or bytes(payload.id))
    return "heartbeat" if bytes(payload.ts_ms) and is_alone else None


def _images(payload: _Payload) -> dict[str, Raw]:
    """MongoDB's documents are text with JSON in it."""
    if payload.op == "m":
        return {"message": image(payload.message, "message")}
    return {"new": image(payload.after, "after", b'{n"'), "old": image(payload.before, "before", b'{n"')}


def _place(payload: _Payload) -> dict[str, Raw]:
    found = _places.decode(payload.source)
    place = present({name: getattr(found, name) for name in found.__struct_fields__})
    return place | present({"transaction": payload.transaction})


def _dropped(reason: str) -> Decoded:
    return Decoded(None, None, b"", b"", drop=reason)
