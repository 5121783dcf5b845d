"""The event that a row's change becomes, in the envelope of aws-lambda-stream: id, type, timestamp, tags, raw.

Images are spliced in as the bytes they came as, so that numbers keep their digits and text its escapes.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from replicator.core.changes import ID_BYTES
from replicator.core.formats import Decoded, JsonFormat
from replicator.errors import PoisonEvent

NULL = Raw(b"null")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_events = JsonFormat("id")


class RowChange(Struct, frozen=True, kw_only=True):
    """What a feed tells of one row. ``place`` is where the feed found it: columns of a log, by the feed's own names."""

    kind: str
    timestamp_ms: int
    tags: Mapping[str, str]
    raw: Mapping[str, Raw]
    place: Mapping[str, Raw]


def row_event(change: RowChange, *, is_place_unique: bool) -> Decoded:
    """The event, under its id where no two changes of the feed can share it, else under its origin.

    The ``id`` in its bytes is the same for the same change either way, so that consumers may look for repeats by it.
    """
    place = dict(change.place)
    raw = {**change.raw, "source": place} if place else dict(change.raw)
    told = [change.kind, change.timestamp_ms, change.tags, raw]
    event_id = blake2b(msgspec.json.encode(told, order="sorted"), digest_size=ID_BYTES).hexdigest()
    event = {"id": event_id, "type": change.kind, "timestamp": change.timestamp_ms, "tags": change.tags, "raw": raw}
    decoded = _events.decode(msgspec.json.encode(event))
    if not is_place_unique:
        decoded.event_id = None
    return decoded


def kind(table: str, verb: str) -> str:
    return f"{table}-{verb}" if table else verb


def image(raw: Raw, name: str, allowed: bytes = b"{n") -> Raw:
    """A row, or null where there is none. ``allowed``: what its JSON may begin with.

    Raises PoisonEvent for anything else.
    """
    found = bytes(raw)
    if not found:
        return NULL
    if found[0] not in allowed:
        raise PoisonEvent("bad_change", f"{name} is no row")
    return Raw(found)


def present(fields: Mapping[str, Raw]) -> dict[str, Raw]:
    """Without what the record lacks or has null."""
    return {name: Raw(bytes(raw)) for name, raw in fields.items() if bytes(raw) not in (b"", b"null")}


def time_ms(text: str) -> int:
    """Of an ISO time, in UTC where it names no zone. Raises PoisonEvent for what is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise PoisonEvent("bad_change", f"{text[:40]!r} is no time") from exc
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
