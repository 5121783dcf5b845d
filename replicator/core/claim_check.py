"""Claim checks: an event that is too large for a sink leaves as a small pointer, and its body stands in S3.

How it works: the body is the event without our tag, under a name made of its origin and its digest. The pointer is the
same event with its tag and its small members; the others are left out, and ``s3`` says where the body is. That member
stands in the ``detail`` of an event in EventBridge's envelope, of which a bus keeps nothing else; CloudEvents have it
as attributes ``s3bucket``, ``s3key`` and so on.

Why it is safe: what stands under a name never changes, so a pointer that is out stays true whoever stores the body
again. It is stored before the pointer leaves; after a crash in between it is stored again, or stays behind unused.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw, Struct

from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE
from replicator.core.model import Origin, Region
from replicator.core.skim import MISSING, RESERVED_KEY

POINTER = "s3"
DETAIL = "detail"
ENVELOPE = frozenset({"source", "detail-type", DETAIL})
"""What an event that came from a bus has."""
KEPT_BYTES_MAX = 1024
"""Of a member's value that stays in the pointer."""
DIGEST_HEX = 32
TAGS = (RESERVED_KEY, CLOUDEVENTS_ATTRIBUTE)


class Pointer(Struct, frozen=True, omit_defaults=True):
    """Where a body is; aws-lambda-stream's say no more than ``bucket`` and ``key``.

    ``redacted``: the paths that were redacted in the body.
    """

    bucket: str
    key: str
    region: str = ""
    sha256: str = ""
    bytes: int = 0
    redacted: tuple[str, ...] = ()


class _Attributes(Struct, omit_defaults=True, rename={name: POINTER + name for name in Pointer.__struct_fields__}):
    """The same as CloudEvents have it: lower-case letters and digits, simple types."""

    bucket: str
    key: str
    region: str = ""
    sha256: str = ""
    bytes: int = 0
    redacted: str = ""


class Checked(Struct, frozen=True):
    """``name`` and ``body`` of the object to store, and the event that leaves in its place."""

    name: str
    body: bytes
    pointer: bytes


class Cloakroom(Struct, frozen=True):
    """Where bodies of a link go. ``redacted`` are the paths that are redacted in all of them."""

    region: Region
    bucket: str
    prefix: str
    redacted: Sequence[str] = ()

    def check_in(self, data: bytes, origin: Origin | None) -> Checked:
        """Of an event with its tag, in which its origin stands. Raises ValueError for anything else."""
        event: dict[str, Raw] = msgspec.json.decode(data, type=dict[str, Raw])
        tag_name = next(iter(event), "")
        if tag_name not in TAGS or origin is None:
            raise ValueError("it does not begin with a tag")
        body = _without(data, b'"%b":%b' % (tag_name.encode(), event[tag_name]))
        digest = sha256(body).hexdigest()
        name = f"{self.prefix}{origin.key}-{digest[:DIGEST_HEX]}"
        place = Pointer(self.bucket, name, self.region, digest, len(body), tuple(self.redacted))
        pointing = _pointing(event, place, is_flat=tag_name == CLOUDEVENTS_ATTRIBUTE)
        kept = {member: raw for member, raw in event.items() if member == tag_name or len(raw) <= KEPT_BYTES_MAX}
        return Checked(name, body, msgspec.json.encode(kept | pointing))


def _without(data: bytes, member: bytes) -> bytes:
    """The event without its first member, spelt so. Raises ValueError."""
    at = data.index(member)
    return data[:at] + data[at + len(member) :].removeprefix(b",")


def _pointing(event: dict[str, Raw], place: Pointer, *, is_flat: bool) -> dict[str, Raw]:
    """The members that say where the body is."""
    if is_flat:
        fields = (place.bucket, place.key, place.region, place.sha256, place.bytes, ",".join(place.redacted))
        found: dict[str, Raw] = msgspec.json.decode(msgspec.json.encode(_Attributes(*fields)), type=dict[str, Raw])
        return found
    if event.keys() >= ENVELOPE and bytes(event[DETAIL])[:1] == b"{":
        return {DETAIL: Raw(msgspec.json.encode({POINTER: place}))}
    return {POINTER: Raw(msgspec.json.encode(place))}


class _Detail(Struct):
    s3: Raw = MISSING


class _Event(Struct):
    s3: Raw = MISSING
    detail: Raw = MISSING


_events = msgspec.json.Decoder(_Event)
_details = msgspec.json.Decoder(_Detail)
_pointers = msgspec.json.Decoder(Pointer)
_attributes = msgspec.json.Decoder(_Attributes)


def pointer_of(data: bytes) -> Pointer | None:
    """Where the body of an event stands; None where the event is whole."""
    pointer = None
    event = _decoded(_events, data)
    if event is not None:
        pointer = _decoded(_pointers, event.s3)
        if pointer is None and bytes(event.detail)[:1] == b"{":
            detail = _decoded(_details, event.detail)
            pointer = _decoded(_pointers, detail.s3) if detail is not None else None
    if pointer is None and (flat := _decoded(_attributes, data)) is not None:
        redacted = tuple(flat.redacted.split(",")) if flat.redacted else ()
        pointer = Pointer(flat.bucket, flat.key, flat.region, flat.sha256, flat.bytes, redacted)
    return pointer


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes | Raw) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
