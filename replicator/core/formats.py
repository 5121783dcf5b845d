"""The formats of events: which bytes are an event, where its id stands, and where our tag goes.

How it works: only the few fields the protocol needs are decoded, the rest of the bytes is skipped and never written
anew. The tag is spliced in as the first member of the JSON object; where it already stands there, it is cut out by its
length. An event with a tag somewhere else (somebody re-serialised it) takes a slower way that finds it by scanning.

Why it is safe: an event always leaves with exactly one tag. Two tags, or one that can't be read, make the event poison.
"""

import zlib
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from functools import lru_cache
from re import compile as pattern
from typing import Literal, Protocol, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from replicator.core.json_members import members, without
from replicator.core.skim import MISSING, RESERVED_KEY, Skim, Skimmed, skim_nothing
from replicator.core.tag import Tag, decode_tag
from replicator.errors import PoisonEvent

FormatName = Literal["json", "cloudevents", "lambda-stream", "opaque"]

CLOUDEVENTS_ATTRIBUTE = "replicatortag"
"""CloudEvents 1.0: attribute names are lower-case letters and digits, extension values simple types."""
WRAPPED_KEY = "data_base64"

TRACEPARENT = pattern(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2."""

T = TypeVar("T")


class Decoded(Struct, eq=False, gc=False):
    """An event cut where the tag belongs: ``head``, tag, ``tail``. Neither part holds a tag."""

    event_id: str | None
    tag: Tag | None
    head: bytes
    tail: bytes
    trace: str | None = None
    hint_region: str | None = None
    """Where the event says it was made (lambda-stream ``tags.region``): a hint, our tag is the authority."""
    is_text_tag: bool = False
    drop: str = ""
    """Why it is no event for anybody else, though its bytes are in order."""

    def with_tag(self, tag_json: bytes) -> bytes:
        """The event with this tag and no other; all other bytes as they were."""
        if self.is_text_tag:
            tag_json = b'"' + urlsafe_b64encode(tag_json).rstrip(b"=") + b'"'
        return b"".join((self.head, tag_json, self.tail))

    def check(self) -> int:
        """CRC-32 of the event without any tag: the same before and after replication."""
        rest = memoryview(self.tail)
        return zlib.crc32(rest[1:] if self.tail.startswith(b",") else rest, _opening_check(self.head))


@lru_cache(maxsize=16)
def _opening_check(head: bytes) -> int:
    """Of what stands before the tag's key: it is as good as always the brace alone."""
    return zlib.crc32(head[: head.index(b"{") + 1])


class Format(Protocol):
    """Raises nothing but PoisonEvent, whatever the bytes."""

    def decode(self, data: bytes) -> Decoded: ...

    def skim(self, datas: Iterable[bytes]) -> list[Skimmed]:
        """What can be told of each event at a glance (`core.skim`); None: see `decode`."""
        ...


def make_format(
    kind: FormatName, *, event_id_field: str = "id", opaque: Literal["refuse", "wrap"] = "refuse"
) -> Format:
    """The format named in the configuration; ``event_id_field`` is for `json`, ``opaque`` for `opaque`."""
    match kind:
        case "json":
            return JsonFormat(event_id_field)
        case "cloudevents":
            return CloudEventsFormat()
        case "lambda-stream":
            return LambdaStreamFormat()
        case "opaque":
            return OpaqueFormat(opaque)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        reason = "bad_envelope" if data.lstrip()[:1] == b"{" else "not_an_object"
        raise PoisonEvent(reason, str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PoisonEvent("not_json", str(exc)) from exc


class _Splice:
    """Where one reserved member stands in a JSON object."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._quoted = b'"' + key.encode() + b'"'
        self._first = b"{" + self._quoted + b":"

    def cut(self, data: bytes, raw: bytes | None) -> tuple[bytes, bytes]:
        """Head and tail around the tag's place; ``raw`` is the value a parser found under the key, None for none."""
        if raw is None:
            if data[:1] == b"{" and data[1] not in b" \t\r\n}":
                return self._first, b"," + data[1:]
            return self._around(data)
        start = len(self._first)
        end = start + len(raw)
        # A parser takes the last of several members of one name: what it took must be what stands in our place.
        if data.startswith(self._first) and data[start:end] == raw and data.count(self._quoted) == 1:
            return self._first, data[end:]
        return self._scan(data)

    def _around(self, data: bytes) -> tuple[bytes, bytes]:
        brace = data.index(b"{") + 1
        rest = data[brace:]
        is_empty = rest.lstrip(b" \t\r\n")[:1] == b"}"
        return data[:brace] + self._quoted + b":", rest if is_empty else b"," + rest

    def _scan(self, data: bytes) -> tuple[bytes, bytes]:
        tags = [member for member in members(data) if member.key == self._key]
        if len(tags) != 1:
            raise PoisonEvent("two_tags", f"{len(tags)} members are named {self._key}")
        tag = tags[0]
        if data[tag.start : tag.value_start] == self._quoted + b":" and data[: tag.start].lstrip() == b"{":
            return data[: tag.value_start], data[tag.end :]
        return self._around(without(data, tag))


def _trace(value: object) -> str | None:
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


class _JsonEnvelope(Struct, gc=False):
    event_id: Raw
    tag: Raw
    trace: Raw


class JsonFormat:
    """Any JSON object. The id is a top-level string or integer; an event without one goes by its origin."""

    def __init__(self, event_id_field: str) -> None:
        shape = msgspec.defstruct(
            "JsonEnvelope",
            [
                ("event_id", Raw, msgspec.field(name=event_id_field, default=MISSING)),
                ("tag", Raw, msgspec.field(name=RESERVED_KEY, default=MISSING)),
                ("trace", Raw, msgspec.field(name="traceparent", default=MISSING)),
            ],
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(cast("type[_JsonEnvelope]", shape))
        self._splice = _Splice(RESERVED_KEY)
        self.skim = Skim(event_id_field)

    def decode(self, data: bytes) -> Decoded:
        envelope = _decode(self._decoder, data)
        raw = None if envelope.tag is MISSING else bytes(envelope.tag)
        tag = None if raw is None else decode_tag(raw)
        head, tail = self._splice.cut(data, raw)
        event_id = None if envelope.event_id is MISSING else _id_text(bytes(envelope.event_id))
        trace = None if envelope.trace is MISSING else _raw_trace(bytes(envelope.trace))
        return Decoded(event_id, tag, head, tail, trace)


def _id_text(raw: bytes) -> str | None:
    """An id as text: a string's value, an integer's digits; anything else is no id."""
    if raw[:1] == b'"':
        return (raw[1:-1].decode() if raw.isascii() and b"\\" not in raw else _string(raw)) or None
    return raw.decode() if raw.lstrip(b"-").isdigit() else None


def _raw_trace(raw: bytes) -> str | None:
    return _trace(_string(raw)) if raw[:1] == b'"' else None


def _string(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _CloudEvent(Struct, rename={"tag": CLOUDEVENTS_ATTRIBUTE}):
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    tag: Raw = Raw()
    traceparent: Raw = Raw()


class CloudEventsFormat:
    """CloudEvents 1.0, structured JSON. An event's identity is its source and id together (section 3.1)."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_CloudEvent)
        self._splice = _Splice(CLOUDEVENTS_ATTRIBUTE)
        self.skim = skim_nothing

    def decode(self, data: bytes) -> Decoded:
        event = _decode(self._decoder, data)
        if not (event.id and event.source and event.type):
            raise PoisonEvent("bad_envelope", "id, source and type of a CloudEvent must not be empty")
        raw = bytes(event.tag) or None
        tag = _text_tag(raw) if raw is not None else None
        head, tail = self._splice.cut(data, raw)
        trace = _raw_trace(bytes(event.traceparent))
        return Decoded(f"{event.source} {event.id}", tag, head, tail, trace, is_text_tag=True)


def _text_tag(raw: bytes) -> Tag:
    text = _string(raw)
    if text is None:
        raise PoisonEvent("malformed_tag", f"{CLOUDEVENTS_ATTRIBUTE} is no string")
    try:
        return decode_tag(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (Base64Error, ValueError) as exc:
        raise PoisonEvent("malformed_tag", f"{CLOUDEVENTS_ATTRIBUTE} is no base64: {exc}") from exc


class _LambdaTags(Struct):
    region: str | None = None


_Tags: TypeAlias = _LambdaTags | str | None
"""Text where aws-lambda-stream compressed them, as it does with any large member (its src/utils/compression.js)."""


class _LambdaEvent(Struct, rename={"tag": RESERVED_KEY}):
    id: str
    type: str
    tags: _Tags = None
    tag: Raw = Raw()
    traceparent: Raw = Raw()


class LambdaStreamFormat:
    """The envelope of aws-lambda-stream: ``{id, type, timestamp, partitionKey, tags}``."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_LambdaEvent)
        self._splice = _Splice(RESERVED_KEY)
        self.skim = Skim("id", [("type", str), ("tags", _Tags, None)])

    def decode(self, data: bytes) -> Decoded:
        event = _decode(self._decoder, data)
        if not event.id:
            raise PoisonEvent("bad_envelope", "id must not be empty")
        raw = bytes(event.tag) or None
        tag = decode_tag(raw) if raw is not None else None
        head, tail = self._splice.cut(data, raw)
        hint = event.tags.region if isinstance(event.tags, _LambdaTags) else None
        return Decoded(event.id, tag, head, tail, _raw_trace(bytes(event.traceparent)), hint)


class _Wrapper(Struct, forbid_unknown_fields=True, rename={"tag": RESERVED_KEY}):
    tag: Raw
    data_base64: str


class OpaqueFormat:
    """Any bytes. They leave inside a JSON wrapper, because a Kinesis record has no place for a tag beside its data."""

    def __init__(self, policy: Literal["refuse", "wrap"]) -> None:
        self._policy = policy
        self._decoder = msgspec.json.Decoder(_Wrapper)
        self._splice = _Splice(RESERVED_KEY)
        self.skim = skim_nothing
        self._first = f'{{"{RESERVED_KEY}":'.encode()

    def decode(self, data: bytes) -> Decoded:
        if data.startswith(self._first):
            wrapper = _decode(self._decoder, data)
            raw = bytes(wrapper.tag)
            head, tail = self._splice.cut(data, raw)
            tag = decode_tag(raw)
            return Decoded(tag.event_id, tag, head, tail)
        if self._policy == "refuse":
            raise PoisonEvent("opaque_refused", "set `opaque: wrap` on the source to replicate bytes of any kind")
        tail = b"".join((b',"', WRAPPED_KEY.encode(), b'":"', b64encode(data), b'"}'))
        return Decoded(None, None, self._first, tail)


def unwrap(data: bytes) -> bytes:
    """The original bytes of a wrapped replica; anything else comes back as it is. For consumers."""
    if not data.startswith(f'{{"{RESERVED_KEY}":'.encode()):
        return data
    try:
        return b64decode(msgspec.json.decode(data, type=_Wrapper).data_base64, validate=True)
    except (msgspec.DecodeError, Base64Error, ValueError):
        return data
