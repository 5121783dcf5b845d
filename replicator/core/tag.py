"""The tag an event carries: where it was born, which regions it has visited, and a proof that we wrote it.

How it works: the origin never changes once set; every region that sends the event appends itself to the path. With
keys configured the tag is signed over everything that routing and idempotency rely on.

Why it is safe: a tag is taken as it is or the event is poison. Nothing is guessed from a damaged tag, because a wrong
origin could send an event round in circles or have it taken for one that was seen before.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import PoisonEvent

VERSION = 1
PATH_MAX = 16
"""Longer than any route `plan` accepts (12 regions)."""
SEQUENCE_DIGITS_MAX = 129
"""Kinesis and DynamoDB sequence numbers: AWS API references, "SequenceNumber"."""
SUB_SEQUENCE_MAX = 2**63 - 1
"""The place of an event within a record: what the columns of a lake hold."""
MAC_BYTES = 16
SECRET_BYTES_MIN = 16
KEY_ID = re.compile(r"[a-z0-9-]{1,16}")
SEQUENCE = re.compile(r"0|[1-9][0-9]{0,128}")


class Tag(Struct, frozen=True, gc=False):
    """What travels inside the event. ``path``: regions that had it, origin first, the last one sent it; empty while the
    event, whose source is not the hub, waits in its origin's own hub. ``replay``: the id of the last replay that sent
    it, for people and consumers; nothing of ours relies on it, so it is not signed.
    """

    generation: int
    origin: Origin
    event_id: EventId
    path: tuple[Region, ...]
    replicated_ms: int
    trace: str | None = None
    signature: str | None = None
    replay: str | None = None

    @property
    def sender(self) -> Region:
        """The region that put the event where it is."""
        return self.path[-1] if self.path else self.origin.region


class WireTag(Struct, omit_defaults=True, gc=False):
    """The tag as JSON. The sequence number is text: JSON readers in other languages lose big integers."""

    v: int
    gen: int
    origin: tuple[str, str, str, str, str, int]
    id: str
    path: tuple[str, ...]
    at: int
    trace: str | None = None
    sig: str | None = None
    replay: str | None = None


class _Version(Struct):
    v: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WireTag)
_version_decoder = msgspec.json.Decoder(_Version)


def encode_tag(tag: Tag) -> bytes:
    """Compact JSON."""
    return _encoder.encode(
        WireTag(
            VERSION,
            tag.generation,
            _origin_fields(tag.origin),
            tag.event_id,
            tag.path,
            tag.replicated_ms,
            tag.trace,
            tag.signature,
            tag.replay,
        )
    )


class TagFrame:
    """Writes what `encode_tag` would for events without trace context that are born in one shard and leave under one
    generation: of such a tag only a few places differ from event to event.

    ``coordinates`` are those of the origin before its sequence.
    """

    def __init__(self, generation: int, coordinates: tuple[str, str, str, str], keys: "TagKeys | None") -> None:
        region = coordinates[0]
        self._origin = _encoder.encode(coordinates)[:-1] + b',"'
        self._head = b'{"v":%d,"gen":%d,"origin":' % (VERSION, generation) + self._origin
        path = _encoder.encode((region,))
        self._behind_id = b',"path":' + path + b',"at":'
        self._keys = keys
        self._signed_head = b"[%d,%d," % (VERSION, generation) + self._origin
        self._signed_tail = b"," + path + b"]"

    def around(self, at_ms: int) -> tuple[bytes, bytes, bytes]:
        """What unsigned tags of one moment have before the number, between it and the id, and behind that, where there
        is no sub-sequence: `tag` without a call for each of them."""
        return self._head, b'",0],"id":', self._behind_id + b"%d}" % at_ms

    def tag(self, number: str, sub_sequence: int, event_id: bytes, at_ms: int) -> tuple[bytes, ...]:
        """The tag in parts; ``number`` is the sequence number as text, ``event_id`` the id as JSON."""
        place = number.encode() + (b'",%d]' % sub_sequence if sub_sequence else b'",0]')
        end = b"%d}" % at_ms
        if self._keys is not None:
            text = b"".join((self._signed_head, place, b",", event_id, self._signed_tail))
            end = b'%d,"sig":"%b"}' % (at_ms, self._keys.signature(text).encode())
        return self._head, place, b',"id":', event_id, self._behind_id, end


def decode_tag(raw: bytes | msgspec.Raw) -> Tag:
    """The reverse; fields added by a later writer of the same version are ignored.

    Raises PoisonEvent ``malformed_tag`` or ``unknown_tag_version``.
    """
    try:
        version = _version_decoder.decode(raw).v
        if version != VERSION:
            raise PoisonEvent("unknown_tag_version", f"tag version {version}, this worker knows {VERSION}")
        wire = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PoisonEvent("malformed_tag", str(exc)) from exc
    return _checked(wire)


def is_sound(wire: WireTag) -> bool:
    """Whether `decode_tag` takes a tag of this way (generation, origin's region, path), once it took another one."""
    return wire.at >= 0 and 0 <= wire.origin[5] <= SUB_SEQUENCE_MAX and SEQUENCE.fullmatch(wire.origin[4]) is not None


def _checked(wire: WireTag) -> Tag:
    region, source, incarnation, shard, sequence, sub_sequence = wire.origin
    problem = _problem(wire, sequence, sub_sequence)
    if problem:
        raise PoisonEvent("malformed_tag", problem)
    origin = Origin(
        Region(region),
        SourceName(source),
        incarnation,
        ShardId(shard),
        SequenceNumber(int(sequence)),
        sub_sequence,
    )
    path = tuple(map(Region, wire.path))
    return Tag(wire.gen, origin, EventId(wire.id), path, wire.at, wire.trace, wire.sig, wire.replay)


def _problem(wire: WireTag, sequence: str, sub_sequence: int) -> str | None:
    if not SEQUENCE.fullmatch(sequence) or not 0 <= sub_sequence <= SUB_SEQUENCE_MAX:
        return f"sequence {sequence[:SEQUENCE_DIGITS_MAX]!r}/{sub_sequence} is no sequence number"
    if wire.path and wire.path[0] != wire.origin[0]:
        return "the path does not begin in the origin's region"
    if len(wire.path) > PATH_MAX or len(set(wire.path)) != len(wire.path):
        return "the path is too long or visits a region twice"
    if wire.gen < 1 or wire.at < 0:
        return "generation or time out of range"
    return None


def _origin_fields(origin: Origin) -> tuple[str, str, str, str, str, int]:
    return (
        origin.region,
        origin.source,
        origin.incarnation,
        origin.shard,
        str(origin.sequence),
        origin.sub_sequence,
    )


def check_regions(tag: Tag, known: frozenset[Region]) -> None:
    """Raises PoisonEvent ``unknown_region`` when the tag names a region that is not configured."""
    if not known.issuperset(tag.path):
        unknown = sorted(set(tag.path) - known)
        raise PoisonEvent("unknown_region", f"the tag names {', '.join(unknown)}, which is not configured")


class TagKeys:
    """Keys by id, one of them current. Old ids stay until every event signed with them is gone."""

    def __init__(self, current: str, keys: Mapping[str, bytes]) -> None:
        for key_id, secret in keys.items():
            if not KEY_ID.fullmatch(key_id) or not secret:
                raise ValueError(f"tag key id {key_id!r} must match {KEY_ID.pattern} and its secret must not be empty")
            if len(secret) < SECRET_BYTES_MIN:
                raise ValueError(
                    f"the secret of tag key {key_id!r} has {len(secret)} bytes, which can be guessed from tags; "
                    f"make one of {SECRET_BYTES_MIN} or more: openssl rand -base64 32"
                )
        if current not in keys:
            raise ValueError(f"the current tag key {current!r} is none of {', '.join(sorted(keys))}")
        self._current = current
        # To be copied: a key that has been taken in is half of what a short text costs.
        self._keys = {key_id: hmac.new(secret, digestmod="sha256") for key_id, secret in keys.items()}

    def sign(self, tag: Tag) -> Tag:
        """The tag with a signature under the current key."""
        return msgspec.structs.replace(tag, signature=self.signature(_signed_text(tag)))

    def signature(self, text: bytes) -> str:
        """Under the current key, of a tag whose `_signed_text` this is."""
        return f"{self._current}.{_mac(self._keys[self._current], text)}"

    def verify(self, tag: Tag) -> None:
        """Raises PoisonEvent ``unsigned``, ``unknown_tag_key`` or ``bad_signature``."""
        self._verify(tag.signature, _signed_text(tag))

    def has_signed(self, wire: WireTag) -> bool:
        """Whether `verify` would take the tag that stands so in an event (and that `is_sound`)."""
        try:
            self._verify(wire.sig, _encoder.encode((VERSION, wire.gen, wire.origin, wire.id, wire.path)))
        except PoisonEvent:
            return False
        return True

    def _verify(self, signature: str | None, text: bytes) -> None:
        if signature is None:
            raise PoisonEvent("unsigned", "this region takes signed tags only")
        key_id, _, mac = signature.partition(".")
        key = self._keys.get(key_id)
        if key is None:
            raise PoisonEvent("unknown_tag_key", f"the tag is signed with key {key_id[:16]!r}")
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), _mac(key, text).encode()):
            raise PoisonEvent("bad_signature", f"the tag's signature under key {key_id!r} does not match")


def _signed_text(tag: Tag) -> bytes:
    """What routing and idempotency rely on, as a JSON array."""
    return _encoder.encode((VERSION, tag.generation, _origin_fields(tag.origin), tag.event_id, tag.path))


def _mac(key: hmac.HMAC, text: bytes) -> str:
    """Truncated HMAC-SHA256 (RFC 2104, section 5). ``key`` is left as it is."""
    mac = key.copy()
    mac.update(text)
    return urlsafe_b64encode(mac.digest()[:MAC_BYTES]).rstrip(b"=").decode()
