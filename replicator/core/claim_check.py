"""Claim checks: an event that is too large for a sink leaves as a small pointer, and its body stands in S3.

How it works: the body is the event without our tag, under a name made of its origin and its digest. The pointer is the
same event with its tag and its small members; the others are left out, and ``s3`` says where the body is. The member
stands in the ``detail`` of an event in EventBridge's envelope, of which a bus keeps nothing else; CloudEvents have it
as attributes ``s3bucket``, ``s3key`` and so on.

Why it is safe: what stands under a name never changes, so a pointer that is out stays true whoever stores the body
again. It is stored before the pointer leaves; after a crash in between it is stored again, or stays behind unused.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from replicator.core.skim import MISSING

POINTER = "s3"
KEPT_BYTES_MAX = 1024
"""Of a member's value that stays in the pointer."""
DIGEST_HEX = 16


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


class _Attributes(Struct, rename={name: POINTER + name for name in Pointer.__struct_fields__}):
    bucket: str
    key: str
    region: str = ""
    sha256: str = ""
    bytes: int = 0
    redacted: str = ""


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
