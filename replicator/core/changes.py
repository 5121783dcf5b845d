"""Change data capture: what a table's change record says, as an event for the hub.

How it works: a change record of DynamoDB Streams is decoded whole (the other feed of a table: `core.cdc_dynamodb`). The
rules of its source tell whether the change was written in this region and is to be told; if so, it becomes an event in
the envelope of aws-lambda-stream, the item's own event (`outbox`), or is passed on as it is (`raw`). Events are written
with their members in order of name, so the same record gives the same bytes whoever reads it again.

Why nothing loops: a change that replication of the table (or a sink of ours) made here is told by the writer's region
in the item, and dropped. A rule that can't tell puts the record into quarantine instead of guessing.
"""

import re
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from replicator.core.formats import Decoded, JsonFormat
from replicator.core.model import Region
from replicator.core.skim import PLAIN_HEAD, skim_nothing
from replicator.errors import PoisonEvent

Mode = Literal["image", "outbox", "raw"]
Writer = Literal["all", "attribute", "stamp"]

LEGACY_PREFIX = "aws:rep:"
"""Attributes that global tables of version 2017 add to an item, by a change of their own."""
TTL_PRINCIPAL = ("Service", "dynamodb.amazonaws.com")
"""Type and principal of a deletion by time to live: DynamoDB Developer Guide, "DynamoDB Streams and Time to Live"."""
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
ID_BYTES = 16
TIME_MAX = 2**53
"""Up to here a float is exact, and the time in microseconds an integer of 64 bits."""

Image = dict[str, dict[str, Any]]
"""Attributes by name, in DynamoDB's JSON: ``{"total": {"N": "5"}}``."""
Images = dict[str, object]
"""``new`` and ``old`` as plain JSON, and what the feed adds."""


class ChangeRules(Struct, frozen=True):
    """How the changes of one table become events, see the README.

    ``written_here`` says how a change is known to be of this region: ``all`` are, or by the region in
    ``region_attribute``, or by that together with ``write_id_attribute``, which every write changes.
    """

    here: Region
    table: str
    mode: Mode = "image"
    entity: str | None = None
    entity_attribute: str = "discriminator"
    outbox_attribute: str = "event"
    written_here: Writer = "all"
    region_attribute: str = "awsregion"
    write_id_attribute: str = "writeid"
    hard_deletes: Literal["last_writer", "local"] = "last_writer"
    ttl_deletes: Literal["forward", "ignore"] = "forward"
    deleted_attribute: str = "deleted"
    latch_attribute: str = "latched"


class _Identity(Struct):
    """The API writes its members large, what Lambda hands on has them small."""

    Type: str = ""
    PrincipalId: str = ""
    type: str = ""
    principalId: str = ""  # noqa: N815 - the vendor's name


class ChangeData(Struct, rename="pascal"):
    """Of both feeds. Only DynamoDB Streams has the sequence number, only the feed on Kinesis the precision."""

    approximate_creation_date_time: Annotated[float, Meta(ge=0, le=TIME_MAX)]
    approximate_creation_date_time_precision: Literal["MILLISECOND", "MICROSECOND"] = "MILLISECOND"
    sequence_number: str = ""
    keys: Image | None = None
    new_image: Image | None = None
    old_image: Image | None = None

    @property
    def changed_ms(self) -> int:
        """DynamoDB Streams has seconds, the feed on Kinesis milliseconds or, on request, microseconds."""
        told = self.approximate_creation_date_time
        if self.sequence_number:
            return round(told * 1000)
        return round(told) // (1000 if self.approximate_creation_date_time_precision == "MICROSECOND" else 1)


class Change(Struct, rename="camel"):
    event_name: Literal["INSERT", "MODIFY", "REMOVE"]
    dynamodb: ChangeData
    user_identity: _Identity | None = None
    table_name: str = ""

    @property
    def image(self) -> Image:
        """The item as it is now, or was when it was deleted."""
        return self.dynamodb.new_image or self.dynamodb.old_image or {}

    @property
    def is_ttl(self) -> bool:
        who = self.user_identity
        return who is not None and (who.Type or who.type, who.PrincipalId or who.principalId) == TTL_PRINCIPAL


_changes = msgspec.json.Decoder(Change)


class ChangeFormat:
    """Implements `core.formats.Format` for change records of one table, and for what became of them in a hub."""

    def __init__(self, rules: ChangeRules) -> None:
        self._rules = rules
        self._events = JsonFormat("id")
        self.skim = skim_nothing

    def decode(self, data: bytes) -> Decoded:
        if data.startswith(PLAIN_HEAD):
            return self._events.decode(data)
        try:
            change = _changes.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise PoisonEvent("bad_change", f"no change record of DynamoDB: {exc}") from exc
        try:
            return self._decoded(change, data)
        except RecursionError as exc:
            raise PoisonEvent("bad_change", f"an item nested deeper than DynamoDB allows: {exc}") from exc

    def _decoded(self, change: Change, data: bytes) -> Decoded:
        reason = self._why_not(change)
        if reason is not None:
            return Decoded(None, None, b"", b"", drop=reason)
        match self._rules.mode:
            case "image":
                return self._events.decode(encode_sorted(self._event(change)))
            case "outbox":
                return self._outbox(change)
            case "raw":
                decoded = self._events.decode(encode_sorted(msgspec.json.decode(data)))
                decoded.event_id = self._id(change)
                return decoded

    # --- whether it is told ----------------------------------------------------------------------------------------

    def _why_not(self, change: Change) -> str | None:
        """The reason to drop the change. Raises PoisonEvent where nobody can tell."""
        rules, data = self._rules, change.dynamodb
        if change.event_name == "MODIFY" and _visible(data.new_image) == _visible(data.old_image):
            return "metadata_only"
        if change.is_ttl and rules.ttl_deletes == "ignore":
            return "ttl_delete"
        if not self._is_local(change):
            return "written_elsewhere"
        if (data.new_image or {}).get(rules.latch_attribute) == {"BOOL": True}:
            return "latched"
        if rules.mode == "outbox" and change.event_name != "INSERT":
            return "outbox_change"
        return None

    def _is_local(self, change: Change) -> bool:
        rules = self._rules
        if rules.written_here == "all":
            return True
        if change.event_name == "REMOVE" and rules.hard_deletes == "local":
            return True
        data = change.dynamodb
        region = _text(change.image.get(rules.region_attribute))
        if rules.written_here == "attribute":
            if region is None:
                where = f"no region in attribute {rules.region_attribute!r}"
                raise PoisonEvent("no_writer_region", f"{where}: nobody can tell where this change was written")
            return region == rules.here
        is_stamped = change.event_name != "MODIFY" or self._stamp(data.new_image) != self._stamp(data.old_image)
        return not is_stamped or region is None or region == rules.here

    def _stamp(self, image: Image | None) -> tuple[object, object]:
        rules, attributes = self._rules, image or {}
        return attributes.get(rules.region_attribute), attributes.get(rules.write_id_attribute)

    # --- what is told ----------------------------------------------------------------------------------------------

    def _id(self, change: Change, images: Images | None = None) -> str:
        """The same whoever reads the record, and for no other record of the region: the stream's own ids differ between
        the regions of a global table, so they are left alone. ``images``: for who has made them already."""
        return blake2b(self._place(change, images), digest_size=ID_BYTES).hexdigest()

    def _place(self, change: Change, images: Images | None) -> bytes:  # noqa: ARG002 - the other feed needs them
        """What no other record of the region has."""
        number = change.dynamodb.sequence_number
        if not number:
            raise PoisonEvent("bad_change", "no change record of DynamoDB Streams: it has no SequenceNumber")
        return f"{self._rules.here}\n{self._rules.table}\n{number}\n{self._ms(change)}".encode("utf-8", "surrogatepass")

    def _ms(self, change: Change) -> int:
        """When the item was changed. DynamoDB Streams has seconds."""
        return round(change.dynamodb.approximate_creation_date_time * 1000)

    def _table(self, _: Change) -> str:
        return self._rules.table

    def _images(self, change: Change) -> Images:
        new, old = change.dynamodb.new_image, change.dynamodb.old_image
        return {
            "new": None if new is None else plain_image(new),
            "old": None if old is None else plain_image(old),
        }

    def _event(self, change: Change) -> dict[str, object]:
        """In the envelope of aws-lambda-stream: id, type, timestamp, tags, raw."""
        images = self._images(change)
        return {
            "id": self._id(change, images),
            "type": f"{self._entity(change)}-{self._verb(change)}",
            "timestamp": self._ms(change),
            "tags": {"region": self._rules.here, "table": self._table(change)},
            "raw": images,
        }

    def _entity(self, change: Change) -> str:
        return _text(change.image.get(self._rules.entity_attribute)) or self._rules.entity or self._table(change)

    def _verb(self, change: Change) -> str:
        if change.event_name != "MODIFY":
            return "created" if change.event_name == "INSERT" else "deleted"
        was, is_now = self._is_deleted(change.dynamodb.old_image), self._is_deleted(change.dynamodb.new_image)
        if was == is_now:
            return "updated"
        return "deleted" if is_now else "undeleted"

    def _is_deleted(self, image: Image | None) -> bool:
        return (image or {}).get(self._rules.deleted_attribute) == {"BOOL": True}

    def _outbox(self, change: Change) -> Decoded:
        """The event that the item carries: a map, or text with a JSON object."""
        name = self._rules.outbox_attribute
        value = change.image.get(name)
        text = _text(value)
        if text is not None:
            decoded = self._events.decode(text.encode())
        elif value is not None and "M" in value:
            decoded = self._events.decode(encode_sorted(_plain(value)))
        else:
            raise PoisonEvent("no_outbox_event", f"attribute {name!r} is neither a map nor text with a JSON object")
        if decoded.tag is not None:
            raise PoisonEvent("no_outbox_event", f"the event in attribute {name!r} carries a tag already")
        decoded.event_id = decoded.event_id or self._id(change)
        return decoded


def encode_sorted(value: object) -> bytes:
    """JSON whose bytes depend on nothing but the value."""
    return msgspec.json.encode(value, order="sorted")


def _visible(image: Image | None) -> Image:
    return {name: value for name, value in (image or {}).items() if not name.startswith(LEGACY_PREFIX)}


def _text(value: dict[str, Any] | None) -> str | None:
    """Of an attribute that is text."""
    text = (value or {}).get("S")
    return text if isinstance(text, str) else None


def plain_image(image: Image) -> dict[str, object]:
    return {name: _plain(value) for name, value in image.items()}


def _plain(value: object) -> object:
    """An attribute's value as plain JSON: numbers with all their digits, binary as base64, sets as sorted arrays.

    Raises PoisonEvent for what is no attribute value (DynamoDB API Reference, "AttributeValue").
    """
    match value:
        case {"M": dict(members)}:
            return {str(name): _plain(member) for name, member in members.items()}
        case {"L": list(values)}:
            return [_plain(member) for member in values]
        case {"SS": list(values)} | {"BS": list(values)}:
            return sorted(map(str, values))
        case {"NS": list(values)}:
            return [_number(number) for number in sorted(map(str, values))]
    return _plain_scalar(value)


def _plain_scalar(value: object) -> object:
    match value:
        case {"S": str(text)} | {"B": str(text)}:
            return text
        case {"N": str(number)}:
            return _number(number)
        case {"BOOL": bool(truth)}:
            return truth
        case {"NULL": True}:
            return None
    raise PoisonEvent("bad_change", "an attribute's value is none of DynamoDB's types")


def _number(text: str) -> Raw:
    if not NUMBER.fullmatch(text):
        raise PoisonEvent("bad_change", f"{text[:40]!r} is no number")
    return Raw(text.encode())
