"""From records to events, once for all links of a source: decode, check the tag, name the event, encode what leaves."""

from collections.abc import Callable, Container, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct

from replicator.core.claims import DIGEST_BYTES, pack_claim
from replicator.core.formats import Decoded, Format
from replicator.core.kpl import MAGIC, unpack
from replicator.core.model import Origin, Record, Region, SequenceNumber, ShardId, SourceName
from replicator.core.routing import REPLICA, Route, outgoing_tag
from replicator.core.skim import PLAIN_HEAD
from replicator.core.tag import Tag, TagFrame, TagKeys, WireTag, check_regions, encode_tag, is_sound
from replicator.errors import PoisonEvent
from replicator.ports import Clock, Entry, Page

_text = msgspec.json.Encoder()
ROUTES_MAX = 1000
"""Ways of replicas that are remembered; a topology has far fewer."""


class Birthplace(Struct, frozen=True, gc=False):
    """What the origins of one source shard's events have in common."""

    region: Region
    source: SourceName
    incarnation: str
    shard: ShardId

    def of(self, record: Record) -> Origin:
        if isinstance(record.lasting, Origin):
            return record.lasting
        sequence = SequenceNumber(int(record.lasting)) if record.lasting else record.sequence
        return Origin(self.region, self.source, self.incarnation, self.shard, sequence, record.sub_sequence)


class Prepared(Struct, eq=False, gc=False):
    """A record with what the protocol needs to know of it.

    ``route`` is None for poison. ``event_id`` is that of a plain event (`core.skim`). Of a replica that may go nowhere
    from here no more is known than its route, until `Preparer.complete` decodes it; of every other event exactly one of
    ``decoded`` and ``poison`` is set.
    """

    record: Record
    birthplace: Birthplace
    route: Route | None = None
    claim: bytes = b""
    event_id: str | None = None
    decoded: Decoded | None = None
    poison: PoisonEvent | None = None
    entry: Entry | None = None

    @property
    def tag(self) -> Tag | None:
        return self.decoded.tag if self.decoded is not None else None

    @property
    def origin(self) -> Origin:
        tag = self.tag
        return self.birthplace.of(self.record) if tag is None else tag.origin


class Known(NamedTuple):
    """What an event is called, and how it came here."""

    origin: Origin
    event_id: str
    path: tuple[Region, ...]


class Preparer:
    """Decodes pages of one source shard of this region."""

    def __init__(
        self,
        *,
        birthplace: Birthplace,
        event_format: Format,
        known_regions: frozenset[Region],
        generation_at: Callable[[int], int],
        keys: TagKeys | None,
        clock: Clock,
        is_home: bool = False,
        replay: str | None = None,
    ) -> None:
        """``is_home``: the events go to this region's own hub, and leave from there. ``replay``: the id of the replay
        whose events they are, for tags; with a format that is not `Unskimmed`, plain events leave without."""
        self._birthplace = birthplace
        self._is_home = is_home
        self._replay = replay
        self._here = birthplace.region
        self._format = event_format
        self._known_regions = known_regions
        self._generation_at = generation_at
        self._keys = keys
        self._clock = clock
        self._born_here: dict[int, Route] = {}
        self._dropped: dict[str, Route] = {}
        self._replicas: dict[tuple[int, str, tuple[str, ...]], Route] = {}
        self._frames: dict[int, TagFrame] = {}

    def prepare(self, page: Page) -> tuple[Prepared, ...]:
        # One loop for what nearly all events are: it runs once for every event there is.
        birthplace, digest_of = self._birthplace, _digest(self._here).copy
        keys, route, arrival_ms = self._keys, None, -1
        prepared = []
        for record, seen in zip(page.records, self._format.skim([r.data for r in page.records]), strict=True):
            if type(seen) is str:
                if route is None or record.arrival_ms != arrival_ms:
                    arrival_ms = record.arrival_ms
                    route = self._route_from_here(self._generation_at(arrival_ms))
                digest = digest_of()
                digest.update(seen.encode())
                claim = pack_claim(digest.digest(), crc32(record.data))
                prepared.append(Prepared(record, birthplace, route, claim, seen))
            elif type(seen) is WireTag and is_sound(seen) and (keys is None or keys.has_signed(seen)):
                known = self._replicas.get((seen.gen, seen.origin[0], seen.path))
                prepared.append(Prepared(record, birthplace, known) if known is not None else self._decode(record))
            else:
                prepared.append(self._decode(record))
        return tuple(prepared)

    def _decode(self, record: Record) -> Prepared:
        try:
            decoded = self._format.decode(record.data)
            tag = decoded.tag
            if tag is not None:
                self._check(tag)
        except PoisonEvent as exc:
            return Prepared(record, self._birthplace, poison=_why_plain(record.data) or exc.anew())
        drop = REPLICA if self._is_home and tag is not None else decoded.drop
        if drop:
            route = self._dropped.setdefault(drop, Route(0, self._here, drop=drop))
            return Prepared(record, self._birthplace, route)
        if tag is not None and tag.path:
            route = self._route_of(tag)
        else:
            route = self._route_from_here(self._generation_at(record.arrival_ms))
        claim = _claim(route.origin, self._event_id(record, decoded), decoded)
        return Prepared(record, self._birthplace, route, claim, decoded=decoded)

    def complete(self, prepared: Prepared) -> None:
        """Decode what was only skimmed, because it goes on from here."""
        full = self._decode(prepared.record)
        prepared.claim, prepared.decoded, prepared.poison = full.claim, full.decoded, full.poison

    def known(self, prepared: Prepared) -> Known:
        """Of any event, also one that goes nowhere from here; ``prepared`` stays as it is. Raises PoisonEvent."""
        if prepared.event_id is not None:
            return Known(prepared.origin, prepared.event_id, ())
        is_full = prepared.decoded is not None or prepared.poison is not None
        full = prepared if is_full else self._decode(prepared.record)
        if full.poison is not None:
            raise full.poison.anew()
        if full.decoded is None:
            return Known(full.origin, full.origin.key, ())
        path = full.tag.path if full.tag is not None else ()
        return Known(full.origin, self._event_id(full.record, full.decoded), path)

    def _route_from_here(self, generation: int) -> Route:
        return self._born_here.get(generation) or self._born_here.setdefault(generation, Route(generation, self._here))

    def _route_of(self, tag: Tag) -> Route:
        """Of a tag that was checked; events that come the same way share it."""
        place = (tag.generation, tag.origin.region, tag.path)
        if len(self._replicas) >= ROUTES_MAX:
            self._replicas.clear()
        return self._replicas.setdefault(place, Route(*place))

    def _check(self, tag: Tag) -> None:
        check_regions(tag, self._known_regions)
        if not tag.path and tag.origin.region != self._here:
            where = f"the tag says that it has not left {tag.origin.region} yet"
            raise PoisonEvent("malformed_tag", f"{where}, and this is {self._here}")
        if self._keys is not None:
            self._keys.verify(tag)

    def _event_id(self, record: Record, decoded: Decoded) -> str:
        """An event without an id goes by its origin."""
        if decoded.tag is not None:
            return decoded.tag.event_id
        return decoded.event_id or self._birthplace.of(record).key

    def encode_plain(self, events: Iterable[Prepared], routes: Container[Route | None]) -> None:
        """Makes the `entry` of plain events on these routes, where it is not there yet."""
        # One loop like `prepare`'s.
        now_ms, last = self._clock.now_ms(), None
        join, as_json, is_signed = b"".join, _text.encode, self._keys is not None
        for prepared in events:
            route = prepared.route
            if prepared.entry is None and prepared.event_id is not None and route in routes:
                if route is not last:
                    assert route is not None, "poison has no id"
                    last, frame = route, self._frames.get(route.generation) or self._frame(route.generation)
                    head, middle, tail = frame.around(now_ms)
                    head, tail = PLAIN_HEAD + head, tail + b","
                record, event_id = prepared.record, as_json(prepared.event_id)
                if is_signed or record.sub_sequence:
                    tag = frame.tag(record.number, record.sub_sequence, event_id, now_ms)
                    data = join((PLAIN_HEAD, *tag, b",", record.data[1:]))
                else:
                    data = join((head, record.number.encode(), middle, event_id, tail, record.data[1:]))
                prepared.entry = Entry(data, record.partition_key)

    def entry(self, prepared: Prepared) -> Entry:
        """What leaves this region, the same for every peer; made at the first call and kept. Raises PoisonEvent."""
        if not prepared.claim:
            self.complete(prepared)
            if prepared.poison is not None:
                raise prepared.poison.anew()
        if prepared.entry is None:
            if prepared.event_id is not None:
                self.encode_plain((prepared,), (prepared.route,))
            else:
                data = self._encode(prepared, self._clock.now_ms())
                prepared.entry = Entry(data, prepared.record.partition_key)
        assert prepared.entry is not None
        return prepared.entry

    def without_replay(self, prepared: Prepared) -> Entry | None:
        """What leaves without the id of a replay, which is for people and consumers alone; None: it has none anyway."""
        decoded = prepared.decoded
        if decoded is None or not (self._replay or (decoded.tag is not None and decoded.tag.replay)):
            return None
        return Entry(self._encode(prepared, self._clock.now_ms(), has_replay=False), prepared.record.partition_key)

    def _frame(self, generation: int) -> TagFrame:
        place = self._birthplace
        coordinates = (place.region, place.source, place.incarnation, place.shard)
        frame = self._frames[generation] = TagFrame(generation, coordinates, self._keys)
        return frame

    def _encode(self, prepared: Prepared, now_ms: int, *, has_replay: bool = True) -> bytes:
        decoded, route = prepared.decoded, prepared.route
        assert decoded is not None, "what leaves was decoded"
        assert route is not None, "poison never leaves"
        tag = outgoing_tag(
            decoded.tag,
            here=self._here,
            generation=route.generation,
            origin=prepared.origin,
            event_id=self._event_id(prepared.record, decoded),
            trace=decoded.trace,
            now_ms=now_ms,
            is_home=self._is_home,
            replay=self._replay,
        )
        if not has_replay:
            tag = msgspec.structs.replace(tag, replay=None)
        if self._keys is not None:
            tag = self._keys.sign(tag)
        return decoded.with_tag(encode_tag(tag))


@lru_cache(maxsize=64)
def _digest(region: Region) -> blake2b:
    """To be copied, and fed with an event's id, which is unique within the region it was born in."""
    return blake2b(f"{region}\n".encode(), digest_size=DIGEST_BYTES)


def _why_plain(data: bytes) -> PoisonEvent | None:
    """What kept a KPL aggregate from being unpacked, when that is why its bytes are no event."""
    if not data.startswith(MAGIC):
        return None
    try:
        unpack(data)
    except PoisonEvent as exc:
        return exc.anew()
    return PoisonEvent("bad_aggregate", "this is a KPL aggregate inside a KPL aggregate")


def sender_and_origin(event_format: Format) -> Callable[[bytes], tuple[Region, Origin] | None]:
    """For reading a sink back: who sent a stored event, and its origin; None for events of other making."""

    def look(data: bytes) -> tuple[Region, Origin] | None:
        try:
            tag = event_format.decode(data).tag
        except PoisonEvent:
            return None
        return (tag.sender, tag.origin) if tag else None

    return look


def _claim(region: Region, event_id: str, decoded: Decoded) -> bytes:
    """Identity of the event and of its bytes."""
    digest = _digest(region).copy()
    digest.update(event_id.encode("utf-8", "surrogatepass"))
    return pack_claim(digest.digest(), decoded.check())
