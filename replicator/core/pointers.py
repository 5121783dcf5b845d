"""Where the body of an event stands that left it in S3, as it is written in the event.

It is a member ``s3``, with bucket and key as aws-lambda-stream has them, and more where the pointer is ours; in an
event of EventBridge a member of its ``detail``, of which alone a bus brings something to its consumers; in CloudEvents
attributes ``s3bucket``, ``s3key`` and so on.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict

from replicator.core.skim import MISSING

POINTER, DETAIL = "s3", "detail"


class Pointer(Struct, frozen=True, omit_defaults=True):
    """aws-lambda-stream's say no more than ``bucket`` and ``key``.

    ``redacted``: paths that were redacted in the body; ``absent``: paths at which residency found nothing in it.
    """

    bucket: str
    key: str
    region: str = ""
    sha256: str = ""
    bytes: int = 0
    redacted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class _Attributes(Struct, omit_defaults=True, rename={name: POINTER + name for name in Pointer.__struct_fields__}):
    """The same as CloudEvents have it: lower-case letters and digits, simple types, lists as JSON."""

    bucket: str
    key: str
    region: str = ""
    sha256: str = ""
    bytes: int = 0
    redacted: str = "[]"
    absent: str = "[]"


class _Detail(Struct):
    s3: Raw = MISSING


class _Event(Struct):
    s3: Raw = MISSING
    detail: Raw = MISSING


_events = msgspec.json.Decoder(_Event)
_details = msgspec.json.Decoder(_Detail)
_pointers = msgspec.json.Decoder(Pointer)
_attributes = msgspec.json.Decoder(_Attributes)
_paths = msgspec.json.Decoder(tuple[str, ...])


def pointer_of(data: bytes) -> Pointer | None:
    """Where the body of an event stands; None where the event is whole."""
    event = _decoded(_events, data)
    if event is None:
        return None
    pointer = _decoded(_pointers, event.s3)
    if pointer is None and bytes(event.detail)[:1] == b"{":
        detail = _decoded(_details, event.detail)
        pointer = _decoded(_pointers, detail.s3) if detail is not None else None
    if pointer is None and (flat := _decoded(_attributes, data)) is not None:
        lists = {name: _decoded(_paths, getattr(flat, name).encode()) or () for name in ("redacted", "absent")}
        pointer = Pointer(**{**asdict(flat), **lists})
    found: Pointer | None = pointer
    return found


def attributes(place: Pointer) -> dict[str, Raw]:
    """As attributes of a CloudEvent."""
    lists = {name: msgspec.json.encode(getattr(place, name)).decode() for name in ("redacted", "absent")}
    found = _Attributes(**{**asdict(place), **lists})
    told: dict[str, Raw] = msgspec.json.decode(msgspec.json.encode(found), type=dict[str, Raw])
    return told


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes | Raw) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
