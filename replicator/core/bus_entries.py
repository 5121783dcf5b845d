"""Events as entries of EventBridge's PutEvents.

How it works: an event that came from a bus through a queue (`core.messages`) stands in EventBridge's envelope. It is
put under its own source, detail type, time and resources, and our tag moves from the envelope into the detail, as its
first member: nothing else of an envelope survives a bus. Any other JSON object is the detail itself, with the tag where
it is.

Why it is safe: a detail always bears exactly one tag, and who reads a bus for us looks for it there (`core.messages`),
so nothing that was put returns. The bytes of a detail are those of the event; the tag is spliced in.
"""

from datetime import datetime
from re import compile as pattern

import msgspec
from msgspec import Raw, Struct

from replicator.core.formats import TRACEPARENT, JsonFormat
from replicator.core.skim import MISSING, RESERVED_KEY
from replicator.errors import PoisonEvent, Refused

ENTRIES_MAX = 10
"""Source: EventBridge API reference, PutEvents: entries of one request."""
REQUEST_BYTES_MAX = 256 * 1024
"""Source: EventBridge User Guide, "Calculating PutEvents event entry size": all entries together are below 256 KB. AWS
has begun to raise it to 1 MB."""
TIME_BYTES = 14
"""What a Time counts there, however it is written."""
SOURCE_CHARACTERS_MAX, DETAIL_TYPE_CHARACTERS_MAX = 256, 128
ADDED_BYTES_MAX = 4 * (SOURCE_CHARACTERS_MAX + DETAIL_TYPE_CHARACTERS_MAX) + TIME_BYTES
"""What an entry may count more than the event it was made of."""
RESERVED_SOURCE = "aws."

XRAY_TRACE = pattern(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;Parent=[0-9a-f]{16})?(;Sampled=[01?])?")
"""Source: X-Ray Developer Guide, "Tracing header"."""

_details = JsonFormat("id")


class BusEntry(Struct, frozen=True):
    """``time_s`` since the epoch, None for when the bus takes it."""

    source: str
    detail_type: str
    detail: bytes
    time_s: float | None = None
    resources: tuple[str, ...] = ()
    trace: str | None = None

    @property
    def size_bytes(self) -> int:
        """As AWS counts it."""
        texts = (self.source, self.detail_type, *self.resources)
        return sum(len(text.encode()) for text in texts) + len(self.detail) + TIME_BYTES * (self.time_s is not None)


class _Event(Struct, rename={"detail_type": "detail-type", "tag": RESERVED_KEY}):
    tag: Raw = MISSING
    detail_type: Raw = MISSING
    source: Raw = MISSING
    detail: Raw = MISSING
    time: Raw = MISSING
    resources: Raw = MISSING
    type: Raw = MISSING


class _Traced(Struct):
    traceparent: Raw = MISSING


_events = msgspec.json.Decoder(_Event)
_traced = msgspec.json.Decoder(_Traced)
_texts = msgspec.json.Decoder(str)
_lists = msgspec.json.Decoder(tuple[str, ...])


class BusEntries:
    """``source`` of events that name none; ``detail_type`` of those without a type, None to refuse them."""

    def __init__(self, source: str, detail_type: str | None) -> None:
        self._source = source
        self._detail_type = detail_type

    def entry(self, data: bytes) -> BusEntry:
        """Raises Refused for what a bus does not take."""
        try:
            text = data.decode()
            event = _events.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Refused(f"a bus takes JSON objects only: {exc}; use a sink of kind kinesis") from exc
        source, detail_type = _text(event.source), _text(event.detail_type)
        is_envelope = event.tag is not MISSING and bytes(event.detail)[:1] == b"{"
        if is_envelope and source is not None and detail_type is not None:
            return self._from_bus(event, source, detail_type)
        detail_type = _text(event.type) or self._detail_type
        if detail_type is None:
            raise Refused("the event has no 'type', which becomes its detail type; set 'detail_type' of the sink")
        return _checked(BusEntry(self._source, detail_type, data, trace=_trace(data)))

    def _from_bus(self, event: _Event, source: str, detail_type: str) -> BusEntry:
        detail = _with_tag(bytes(event.detail), bytes(event.tag))
        return _checked(
            BusEntry(source, detail_type, detail, _time_s(event.time), _resources(event.resources), _trace(detail))
        )


def _with_tag(detail: bytes, tag: bytes) -> bytes:
    try:
        decoded = _details.decode(detail)
    except PoisonEvent as exc:
        raise Refused(f"the event's detail has a member {RESERVED_KEY} that is none of ours: {exc}; remove it") from exc
    if decoded.tag is not None:
        raise Refused(f"the event's detail has a tag ({RESERVED_KEY}) beside that of the event itself; remove it")
    return decoded.with_tag(tag)


def _checked(entry: BusEntry) -> BusEntry:
    """Raises Refused."""
    if entry.source.startswith(RESERVED_SOURCE):
        what = f"the source {entry.source!r} begins with {RESERVED_SOURCE}, under which only AWS itself may put events"
        raise Refused(f"{what}; leave such events out with 'exclude' on the link, or use a sink of kind kinesis")
    for name, text, most in (
        ("source", entry.source, SOURCE_CHARACTERS_MAX),
        ("detail type", entry.detail_type, DETAIL_TYPE_CHARACTERS_MAX),
    ):
        if not 1 <= len(text) <= most:
            raise Refused(f"the event's {name} has {len(text)} characters, and a bus takes 1 to {most}; shorten it")
    return entry


def _text(raw: Raw) -> str | None:
    try:
        return _texts.decode(raw)
    except msgspec.DecodeError:
        return None


def _time_s(raw: Raw) -> float | None:
    """EventBridge writes RFC 3339; a time that can't be read is left to the bus."""
    text = _text(raw)
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def _resources(raw: Raw) -> tuple[str, ...]:
    try:
        return _lists.decode(raw)
    except msgspec.DecodeError:
        return ()


def _trace(detail: bytes) -> str | None:
    """EventBridge's TraceHeader is X-Ray's; a trace context of W3C is the same in other words."""
    trace = _text(_traced.decode(detail).traceparent)
    if trace is None:
        return None
    if TRACEPARENT.fullmatch(trace):
        _, root, parent, flags = trace.split("-")
        return f"Root=1-{root[:8]}-{root[8:]};Parent={parent};Sampled={int(flags, 16) & 1}"
    return trace if XRAY_TRACE.fullmatch(trace) else None
