"""The ports of one worker: the stores in memory, reached over the simulated network.

What a lost answer means to the caller follows the real adapters: `replicator.aws.transport` for Kinesis,
`adapters.redis_claims` and `adapters.dynamodb_leases` for the stores. Reading back is the real one, on a simulated API.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import compress, pairwise
from typing import TypeVar

import msgspec
import pybase64
from msgspec.structs import replace

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream
from replicator.aws.kinesis_api import ChildReply, GetRecordsReply, RecordReply
from replicator.aws.kinesis_reading import Bounds, Pace, Reading, Wanted
from replicator.aws.lease_rows import Item
from replicator.core.bulletin import Bulletin
from replicator.core.hash_range import hash_key
from replicator.core.model import (
    After,
    Checkpoint,
    Lease,
    LinkName,
    Origin,
    Position,
    SequenceNumber,
    Shard,
    ShardId,
    SourceName,
)
from replicator.core.peer_clock import PeerTime
from replicator.core.quarantine_document import Quarantined
from replicator.core.retention import Kept
from replicator.errors import Fenced, InDoubt, Misconfigured, PositionLost, Refused, StoreUnavailable, TransientError
from replicator.ports import NOT_KEPT, ClaimScope, ClaimSession, Cursor, Entry, Found, Page, SinkLimits, SourceInfo

from . import versions
from .network import Heard, Lost, Wire, at_once
from .versions import MORE_OF_A_ROW, OTHER_BYTES, Version

T = TypeVar("T")
CLIENT_TRIES = 3
"""How often a client of the lease table writes again when its row has another beat."""


class Hub(MemoryStream):
    """A region's stream, which tells what it stored, and when it is throttled."""

    def __init__(
        self, now_ms: Callable[[], int], shards: int, on_store: Callable[["Hub", Entry, SequenceNumber], None]
    ):
        self._on_store = on_store
        self.rng = random.Random(0)
        self.throttled = 0.0
        """The part of requests that are refused as a whole."""
        self.partly = 0.0
        """The part of entries that fail singly."""
        self.hot = ""
        """A key whose entries fail."""
        self.largest_bytes = 0
        """The largest record so far."""
        self.repeated: Sequence[Entry] = ()
        """Those that are a copy which no sender could prevent, should they be stored now."""
        self.old_listing: list[Shard] | None = None
        """What is told of the shards for a while, instead of what is there."""
        super().__init__(now_ms, shards)
        self.fault = self._fault

    def store(self, entry: Entry) -> SequenceNumber:
        sequence = super().store(entry)
        self.largest_bytes = max(self.largest_bytes, len(entry.data))
        self._on_store(self, entry, sequence)
        return sequence

    def recreate(self, shards: int = 1) -> None:
        self.old_listing = None
        super().recreate(shards)

    def told_shards(self) -> list[Shard]:
        return self.list_shards() if self.old_listing is None else self.old_listing

    def children(self, shard: ShardId) -> list[Shard]:
        return [child for child in self.list_shards() if shard in child.parents]

    def neighbours(self) -> list[tuple[ShardId, ShardId]]:
        """Open shards that can be merged."""
        is_open = sorted((s for s in self._shards.values() if s.closed_ms is None), key=lambda s: s.start)
        return [(low.id, high.id) for low, high in pairwise(is_open)]

    def throttle(self) -> None:
        if self.throttled and self.rng.random() < self.throttled:
            raise TransientError("throttled", code="throttled")

    def _fault(self, entries: Sequence[Entry]) -> Sequence[str | None] | None:
        self.throttle()
        if not self.partly and not self.hot:
            return None
        return [self._code(entry) for entry in entries]

    def _code(self, entry: Entry) -> str | None:
        if entry.partition_key == self.hot:
            return "ProvisionedThroughputExceededException"
        return "InternalFailure" if self.partly and self.rng.random() < self.partly else None


class WireSource:
    """Implements `ports.Source`."""

    def __init__(self, hub: Hub, wire: Wire) -> None:
        self._hub = hub
        self._source = MemorySource(hub)
        self._wire = wire

    async def describe(self) -> SourceInfo:
        return await self._call(lambda: at_once(self._source.describe()))

    async def shards(self) -> Sequence[Shard]:
        return await self._call(lambda: at_once(self._source.shards()))

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        return await self._call(lambda: at_once(self._source.open(shard, position)))

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        def effect() -> Page:
            self._hub.throttle()
            return at_once(self._source.read(cursor, records_max))

        return await self._call(effect)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        return await self._call(lambda: at_once(self._source.is_kept(shard, position)))

    async def _call(self, effect: Callable[[], T]) -> T:
        try:
            return await self._wire.call(effect)
        except Lost as exc:
            raise TransientError(f"no answer of the source: {exc}", code="no_answer") from exc


class WireSink:
    """Implements `ports.Sink`. The receiver refuses a request ``signature_s`` after the date it was signed for."""

    def __init__(
        self,
        hub: Hub,
        wire: Wire,
        limits: SinkLimits,
        now_ms: Callable[[], int],
        signature_s: float,
        refuses: bytes,
        on_denied: Callable[[Entry, int], None],
        version: Version,
    ) -> None:
        """``on_denied``: an entry was stored in the stream of that time, and the caller hears that it was not."""
        self._hub = hub
        self._wire = wire
        self._putting = replace(wire, name="put")
        self._sink = MemorySink(hub, limits)
        self._now_ms = now_ms
        self._signature_ms = int(signature_s * 1000)
        self._refuses = refuses
        self._on_denied = on_denied
        self._version = version
        taken = limits.record_bytes_max - (OTHER_BYTES if version == "next" else 0)
        self._told = replace(limits, record_bytes_max=taken)
        self._rng = hub.rng

    @property
    def limits(self) -> SinkLimits:
        return self._told

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:
        if self._version != "this":
            entries = [replace(e, data=versions.tagged(e.data, e.partition_key, self._version)) for e in entries]
        dated_ms = self._now_ms() if signed_ms is None else signed_ms
        is_dated = signed_ms is not None
        stored: dict[int, int] = {}  # by place, the stream that took the entry when the request came first

        def first() -> Sequence[str | Refused | None]:
            codes = self._store(entries, dated_ms, is_dated=is_dated)
            stored.update((place, self._hub.created_ms) for place, code in enumerate(codes) if code is None)
            return codes

        def again(heard: Heard) -> Sequence[str | Refused | None]:
            denied = dict(stored) if heard == "again" else {}
            is_copy = [
                stored[place] == self._hub.created_ms if place in stored else heard == "first"
                for place in range(len(entries))
            ]
            try:
                codes = self._store_again(entries, list(compress(entries, is_copy)), dated_ms, is_dated=is_dated)
                for place, code in enumerate(codes):
                    if code is None:
                        denied.pop(place, None)
                return codes
            finally:
                for place, created_ms in denied.items():
                    self._on_denied(entries[place], created_ms)

        try:
            return await self._putting.call(first, again)
        except Lost as exc:
            if exc.has_left:
                raise InDoubt(f"no answer of the peer: {exc}", sent_ms=dated_ms) from exc
            raise TransientError("can't connect to the peer", code="connect") from exc

    def _store_again(
        self, entries: Sequence[Entry], copies: Sequence[Entry], dated_ms: int, *, is_dated: bool
    ) -> Sequence[str | Refused | None]:
        """A copy is what the first one stored in the same stream, or what its sender heard was not stored.

        Of what its sender does not know, the one that is stored is no copy: whoever is in doubt finds it.
        """
        self._hub.repeated = copies
        try:
            return self._store(entries, dated_ms, is_dated=is_dated)
        finally:
            self._hub.repeated = ()

    def _store(self, entries: Sequence[Entry], dated_ms: int, *, is_dated: bool) -> Sequence[str | Refused | None]:
        """PutRecords promises no order among the entries of one request, so they are stored in any."""
        if abs(self._hub.now_ms() - dated_ms) > self._signature_ms:
            if is_dated:
                raise TransientError("the request came after its date had expired", code="late")
            raise Misconfigured("the signature has expired", code="InvalidSignatureException")
        if self._refuses and any(self._refuses in entry.data for entry in entries):
            raise Refused("the peer takes no such event")
        order = list(range(len(entries)))
        self._rng.shuffle(order)
        answers = at_once(self._sink.put([entries[place] for place in order]))
        codes: list[str | Refused | None] = [None] * len(entries)
        for place, code in zip(order, answers, strict=True):
            codes[place] = code
        return codes

    async def peer_time(self) -> PeerTime:
        begun_s = self._loop_s()
        try:
            date_s = await self._wire.call(lambda: self._hub.now_ms() // 1000)
        except Lost as exc:
            raise TransientError(f"no answer of the peer: {exc}", code="no_answer") from exc
        now_s = self._loop_s()
        return PeerTime(date_s * 1000, date_s * 1000 + 1000 + int((now_s - begun_s) * 1000) + 1, now_s)

    async def refuses(self, dated_ms: int) -> bool:
        try:
            return await self._wire.call(lambda: self._hub.now_ms() - dated_ms > self._signature_ms)
        except Lost as exc:
            raise TransientError(f"no answer of the peer: {exc}", code="no_answer") from exc

    def _loop_s(self) -> float:
        return self._wire.network.now_s()

    async def read_back(
        self,
        since_ms: int,
        origin_of: Callable[[bytes], Origin | None],
        *,
        records_max: int,
        bytes_max: int | None = None,
        until_ms: int | None = None,
        keys: Collection[str] | None = None,
    ) -> Found:
        api = ReadingApi(self._hub, self._wire)
        hashes = None if keys is None else frozenset(map(hash_key, keys))
        bounds = Bounds(records_max, bytes_max or 10**12, time_max_s=120.0)
        wanted = Wanted(since_ms, until_ms, hashes)
        found = await Reading(api, wanted, origin_of, bounds, Pace(0.5)).run()  # type: ignore[arg-type] - its calls only
        if found.is_complete and since_ms < self._hub.now_ms() - self._hub.retention_ms:
            return replace(found, is_complete=False, why=NOT_KEPT)
        return found


class ReadingApi:
    """Those calls of `aws.kinesis_api.KinesisApi` that reading back makes."""

    def __init__(self, hub: Hub, wire: Wire) -> None:
        self._hub = hub
        self._wire = wire

    async def shards(self) -> Sequence[Shard]:
        return await self._call(self._hub.told_shards)

    async def iterator(self, shard: ShardId, position: Position) -> str:
        return await self._call(lambda: f"{shard}/{self._hub.created_ms}/{self._hub.index(shard, position)}")

    async def get_records(self, token: str, limit: int) -> GetRecordsReply:
        return await self._call(lambda: self._page(token, limit))

    def _page(self, token: str, limit: int) -> GetRecordsReply:
        shard, made_ms, index = token.split("/")
        if int(made_ms) != self._hub.created_ms:
            raise PositionLost("the stream was made anew")
        self._hub.throttle()
        records, following, behind_ms = self._hub.page(ShardId(shard), int(index), min(limit, 7))
        is_end = behind_ms == 0 and self._hub.is_closed(ShardId(shard))
        replies = [
            RecordReply(str(r.sequence), pybase64.b64encode(r.data).decode(), r.partition_key, r.arrival_ms / 1000)
            for r in records
        ]
        if is_end:
            children = [_child(child) for child in self._hub.children(ShardId(shard))]
            return GetRecordsReply(replies, None, behind_ms, children)
        return GetRecordsReply(replies, f"{shard}/{made_ms}/{following}", behind_ms)

    async def _call(self, effect: Callable[[], T]) -> T:
        try:
            return await self._wire.call(effect)
        except (Lost, PositionLost) as exc:
            raise TransientError(f"reading back: {exc}", code="no_answer") from exc


def _child(shard: Shard) -> ChildReply:
    first, last = map(str, shard.hash_range)
    span = {"StartingHashKey": first, "EndingHashKey": last}
    told = {"ShardId": shard.id, "ParentShards": list(shard.parents), "HashKeyRange": span}
    return msgspec.convert(told, ChildReply)


class WireClaims:
    """Implements `ports.ClaimStore`: one attempt a call, as `adapters.redis_claims` makes it."""

    def __init__(self, claims: MemoryClaims, wire: Wire) -> None:
        self._claims = claims
        self._wire = wire

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        return await self._call(lambda: self._claims.attach(scope, epoch, attempt))

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        return await self._call(lambda: self._claims.claim(session, batch, claims))

    async def settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        watermark: SequenceNumber,
        *,
        number: int = 0,
        after: int = 0,
        may_wait: bool = False,
    ) -> None:
        kept = tuple(undone)
        await self._call(lambda: self._claims.settle(session, batch, kept, watermark, number=number, after=after))

    async def forget(self, session: ClaimSession) -> None:
        await self._call(lambda: self._claims.forget(session))

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._wire.call(lambda: at_once(call()))
        except Lost as exc:
            raise StoreUnavailable(f"claims: {exc}") from exc


class WireLeases:
    """Implements `ports.LeaseStore`: an owner's write is conditional on the beat, as in `adapters.dynamodb_leases`.

    The table keeps documents in the place of checkpoints, as the owner's version writes them.
    """

    def __init__(
        self,
        leases: MemoryLeases,
        wire: Wire,
        on_written: Callable[[Lease], None],
        version: Version,
        more: dict[ShardId, Item],
    ) -> None:
        """``more``: members of the region's rows that the next version wrote."""
        self._leases = leases
        self._wire = wire
        self._on_written = on_written
        self._version = version
        self._more = more

    def _read(self, row: Lease) -> Lease:
        return versions.read(row, self._version, self._more.get(row.shard, {}))

    async def rows(self, source: SourceName) -> Sequence[Lease]:
        return [self._read(row) for row in await self._call(lambda: self._leases.rows(source))]

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        await self._call(lambda: self._leases.create(source, shard, incarnation))

    async def acquire(self, seen: Lease, owner: str) -> Lease | None:
        row = await self._call(lambda: self._acquired(seen, owner))
        return None if row is None else self._read(row)

    async def _acquired(self, seen: Lease, owner: str) -> Lease | None:
        row = await self._leases.acquire(seen, owner)
        if row is not None and self._version == "next":
            self._more[row.shard] = MORE_OF_A_ROW
        return row

    async def renew(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> Lease:
        kept = versions.written(checkpoints, self._version)
        return self._read(await self._owned(held, lambda known: self._renewed(known, kept)))

    async def release(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> None:
        kept = versions.written(checkpoints, self._version)
        await self._owned(held, lambda known: self._released(known, kept))

    def _renewed(self, held: Lease, checkpoints: dict[LinkName, Checkpoint]) -> Lease:
        row = at_once(self._leases.renew(held, checkpoints))
        self._on_written(self._read(row))
        return row

    def _released(self, held: Lease, checkpoints: dict[LinkName, Checkpoint]) -> Lease:
        at_once(self._leases.release(held, checkpoints))
        row = self._row(held)
        assert row is not None
        self._on_written(self._read(row))
        return row

    async def _owned(self, held: Lease, write: Callable[[Lease], Lease]) -> Lease:
        """A failed condition is looked into by the client; only somebody else's hand in the row is Fenced."""
        known = held
        for _ in range(CLIENT_TRIES):
            written, row = await self._call_now(lambda known=known: self._if_beat(known, write))
            if written is not None:
                return written
            if row is None or (row.owner, row.epoch) != (held.owner, held.epoch):
                raise Fenced(f"lease {held.source}/{held.shard} is no longer held")
            known = row
        raise StoreUnavailable("the row changed under every write")

    def _if_beat(self, known: Lease, write: Callable[[Lease], Lease]) -> tuple[Lease | None, Lease | None]:
        row = self._row(known)
        is_released_by_us = row is not None and (row.owner, row.epoch) == (None, known.epoch)
        if row is not None and row.beat != known.beat and not is_released_by_us:
            return None, row
        return write(known), row

    def _row(self, seen: Lease) -> Lease | None:
        return next((row for row in at_once(self._leases.rows(seen.source)) if row.shard == seen.shard), None)

    async def ask(self, seen: Lease, wanted_by: str) -> bool:
        return await self._call(lambda: self._leases.ask(seen, wanted_by))

    async def delete(self, seen: Lease) -> bool:
        return await self._call(lambda: self._leases.delete(seen))

    async def bulletin(self, source: SourceName) -> Bulletin | None:
        bulletin = await self._call(lambda: self._leases.bulletin(source))
        return None if bulletin is None else versions.told(bulletin, self._version)

    async def take_turn(self, source: SourceName, turn: int) -> bool:
        return await self._call(lambda: self._leases.take_turn(source, turn))

    async def post(self, source: SourceName, bulletin: Bulletin) -> None:
        posted = versions.posted(bulletin, self._version)
        await self._call(lambda: self._leases.post(source, posted))

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        return await self._call(lambda: self._leases.link_start(source, link, proposed))

    async def kept(self, source: SourceName) -> Kept | None:
        """At once, as `keep`: no retention changes here, and the histories that are kept stay what they are."""
        return await self._leases.kept(source)

    async def keep(self, source: SourceName, kept: Kept) -> None:
        await self._leases.keep(source, kept)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._call_now(lambda: at_once(call()))

    async def _call_now(self, effect: Callable[[], T]) -> T:
        try:
            return await self._wire.call(effect)
        except Lost as exc:
            raise StoreUnavailable(f"lease table: {exc}") from exc


class WireQuarantine:
    """Implements `ports.Quarantine`."""

    def __init__(self, quarantine: MemoryQuarantine, wire: Wire, on_put: Callable[[Quarantined], None]) -> None:
        self._quarantine = quarantine
        self._wire = wire
        self._on_put = on_put

    async def put(self, event: Quarantined) -> None:
        def effect() -> None:
            at_once(self._quarantine.put(event))
            self._on_put(event)

        await self._call(effect)

    async def hold(self, link: LinkName, key: str) -> None:
        await self._call(lambda: at_once(self._quarantine.hold(link, key)))

    async def held(self, link: LinkName) -> frozenset[str]:
        return await self._call(lambda: at_once(self._quarantine.held(link)))

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        return await self._call(lambda: at_once(self._quarantine.held_keys(link)))

    async def release(self, link: LinkName, key: str) -> bool:
        return await self._call(lambda: at_once(self._quarantine.release(link, key)))

    async def _call(self, effect: Callable[[], T]) -> T:
        try:
            return await self._wire.call(effect)
        except Lost as exc:
            raise StoreUnavailable(f"quarantine: {exc}") from exc


class Tally:
    """Implements `ports.Telemetry`: totals by name and labels."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def count(self, name: str, value: int, /, **labels: str) -> None:
        key = "/".join((name, *(labels[label] for label in labels if label not in ("link", "source"))))
        self.totals[key] = self.totals.get(key, 0) + value

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Values of the moment are judged from the outside."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """The same."""


def snapshot_leases(leases: MemoryLeases) -> tuple[dict, ...]:  # type: ignore[type-arg] - the store's own tables
    return dict(leases._rows), dict(leases._starts), dict(leases._bulletins), dict(leases._turns)


def restore_leases(leases: MemoryLeases, kept: tuple[dict, ...]) -> None:  # type: ignore[type-arg] - see above
    leases._rows, leases._starts, leases._bulletins, leases._turns = map(dict, kept)


def snapshot_claims(claims: MemoryClaims) -> dict:  # type: ignore[type-arg] - see above
    return {
        scope: replace(state, open=dict(state.open), done=dict(state.done)) for scope, state in claims._scopes.items()
    }


def restore_claims(claims: MemoryClaims, kept: dict) -> None:  # type: ignore[type-arg] - see above
    claims._scopes = {
        scope: replace(state, open=dict(state.open), done=dict(state.done)) for scope, state in kept.items()
    }
