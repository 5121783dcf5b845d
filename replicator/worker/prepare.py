"""From records to events, once for all links of a source: decode, check the tag, name the event, encode what leaves."""

from collections.abc import Callable
from hashlib import blake2b

from msgspec import Struct

from replicator.core.claims import CHECK_BYTES, DIGEST_BYTES
from replicator.core.formats import Decoded, Format
from replicator.core.kpl import MAGIC, unpack
from replicator.core.model import Origin, Record, Region, ShardId, SourceName
from replicator.core.routing import outgoing_tag
from replicator.core.tag import Tag, TagKeys, check_regions, encode_tag
from replicator.errors import PoisonEvent
from replicator.ports import Clock, Entry, Page


class Prepared(Struct, eq=False, gc=False):
    """A record with what the protocol needs to know of it. Exactly one of ``decoded`` and ``poison`` is set."""

    record: Record
    origin: Origin
    event_id: str
    claim: bytes
    decoded: Decoded | None = None
    poison: PoisonEvent | None = None
    entry: Entry | None = None


class Preparer:
    """Decodes pages of one source shard of this region."""

    def __init__(
        self,
        *,
        here: Region,
        source: SourceName,
        incarnation: str,
        shard: ShardId,
        event_format: Format,
        known_regions: frozenset[Region],
        generation_at: Callable[[int], int],
        keys: TagKeys | None,
        clock: Clock,
    ) -> None:
        self._here = here
        self._source = source
        self._incarnation = incarnation
        self._shard = shard
        self._format = event_format
        self._known_regions = known_regions
        self._generation_at = generation_at
        self._keys = keys
        self._clock = clock

    def prepare(self, page: Page) -> tuple[Prepared, ...]:
        return tuple([self._prepare(record) for record in page.records])

    def _prepare(self, record: Record) -> Prepared:
        try:
            decoded = self._format.decode(record.data)
            tag = decoded.tag
            if tag is not None:
                self._check(tag)
        except PoisonEvent as exc:
            poison = _why_plain(record.data) or exc
            return Prepared(record, self._coordinates(record), "", b"", poison=poison)
        origin = self._coordinates(record) if tag is None else tag.origin
        event_id = (decoded.event_id or origin.key) if tag is None else tag.event_id
        return Prepared(record, origin, event_id, _claim(origin.region, event_id, decoded), decoded)

    def _check(self, tag: Tag) -> None:
        check_regions(tag, self._known_regions)
        if self._keys is not None:
            self._keys.verify(tag)

    def _coordinates(self, record: Record) -> Origin:
        return Origin(self._here, self._source, self._incarnation, self._shard, record.sequence, record.sub_sequence)

    def entry(self, prepared: Prepared) -> Entry:
        """What leaves this region, the same for every peer; encoded at the first call and kept."""
        if prepared.entry is None:
            prepared.entry = self._encode(prepared)
        return prepared.entry

    def _encode(self, prepared: Prepared) -> Entry:
        decoded = prepared.decoded
        assert decoded is not None, "poison never leaves"
        tag = outgoing_tag(
            decoded.tag,
            here=self._here,
            generation=self._generation_at(prepared.record.arrival_ms),
            origin=prepared.origin,
            event_id=prepared.event_id,
            trace=decoded.trace,
            now_ms=self._clock.now_ms(),
        )
        if self._keys is not None:
            tag = self._keys.sign(tag)
        return Entry(decoded.with_tag(encode_tag(tag)), prepared.record.partition_key)


def _why_plain(data: bytes) -> PoisonEvent | None:
    """What kept a KPL aggregate from being unpacked, when that is why its bytes are no event."""
    if not data.startswith(MAGIC):
        return None
    try:
        unpack(data)
    except PoisonEvent as exc:
        return exc
    return PoisonEvent("bad_aggregate", "this is a KPL aggregate inside a KPL aggregate")


def sender_and_origin(event_format: Format) -> Callable[[bytes], tuple[Region, Origin] | None]:
    """For reading a sink back: who sent a stored event, and its origin; None for events of other making."""

    def look(data: bytes) -> tuple[Region, Origin] | None:
        try:
            tag = event_format.decode(data).tag
        except PoisonEvent:
            return None
        return (tag.path[-1], tag.origin) if tag else None

    return look


def _claim(region: Region, event_id: str, decoded: Decoded) -> bytes:
    """Identity of the event (its id is unique within the region it was born in) and of its bytes."""
    digest = blake2b(f"{region}\n{event_id}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
    return digest + decoded.check().to_bytes(CHECK_BYTES, "big")
