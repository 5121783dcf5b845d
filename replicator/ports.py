"""What the worker needs of the outside world, as Protocols. Adapters implement them, memory and real ones alike."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.core.bulletin import Bulletin
from replicator.core.model import (
    After,
    Checkpoint,
    Lease,
    LinkName,
    Origin,
    Position,
    Record,
    SequenceNumber,
    Shard,
    ShardId,
    SourceName,
)
from replicator.core.outcome import Outcome
from replicator.core.peer_clock import PeerTime
from replicator.core.quarantine_document import Document, Quarantined


class Clock(Protocol):
    """Wall time. Durations are taken from the event loop's monotonic clock instead."""

    def now_ms(self) -> int: ...


# --- sources -------------------------------------------------------------------------------------------------------


class Cursor(Struct, frozen=True):
    """Where a read goes on. ``token`` is the vendor's iterator; ``position`` finds the place again when it expires."""

    shard: ShardId
    position: Position
    token: str


class Page(Struct, frozen=True):
    """One reply of a source. ``next`` is None behind the last record of a closed shard.

    ``behind_ms`` is how far the end of this page lies behind the tip of the shard, 0 at the tip. ``stored``: in how
    many records of the source its records came, when several came in one; 0: in one each. ``is_from_lake``: they are no
    longer in the source, the event lake gave them.
    """

    records: tuple[Record, ...]
    next: Cursor | None
    behind_ms: int
    stored: int = 0
    is_from_lake: bool = False


class SourceInfo(Struct, frozen=True):
    """``incarnation`` is the source's creation time in ms, as text: a source deleted and made again gets a new one."""

    incarnation: str
    retention_ms: int


class Source(Protocol):
    """A sharded log. Every method raises TransientError or Misconfigured when the vendor does not serve it."""

    async def describe(self) -> SourceInfo: ...

    async def shards(self) -> Sequence[Shard]:
        """All shards still listed, open and closed."""
        ...

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        """A cursor at ``position``. Raises PositionLost when the sequence number is not one of this shard's.

        For TrimHorizon and AtTimestamp that means that the shard is gone: no longer listed, while the source is there.
        """
        ...

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        """Up to ``records_max`` records behind the cursor, possibly none. An expired iterator is renewed inside.

        Raises PositionLost when the position was trimmed away.
        """
        ...

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Whether nothing behind the position was trimmed, or `open` and `read` would tell if it was.

        False proves no loss: a source that passes over what was trimmed in silence can only say that the record of
        this number is gone, and there may have been none behind it. Raises as `open`.
        """
        ...


class Queue(Protocol):
    """What a source that forgets what is done needs to be told."""

    def done(self, position: Position) -> None:
        """Everything up to the position is settled: it need not come again."""
        ...

    async def run(self, is_held: Callable[[], bool]) -> None:
        """Delete what is done, and keep what is not from others while the lease ``is_held``; until cancelled."""
        ...


# --- sinks ---------------------------------------------------------------------------------------------------------


class Entry(Struct, frozen=True, gc=False):
    """What a sink stores: the event's bytes with the tag inside, under the source's partition key."""

    data: bytes
    partition_key: str


class SinkLimits(Struct, frozen=True):
    """The vendor's bounds on one request, from the adapter's table or the configuration.

    A record's size counts its data and its partition key in UTF-8. ``repeats_dropped_ms``: how long after it took an
    event the sink drops the same one, known by an id of ours; None when it does not.
    """

    records_max: int
    request_bytes_max: int
    record_bytes_max: int
    repeats_dropped_ms: int | None = None


NOT_KEPT = "the peer no longer keeps what is so old"
"""Why a reading back is not complete for good: unlike a bound, this will not be otherwise next time."""


class Found(Struct, frozen=True):
    """What reading a sink back saw. Not ``is_complete``: absence proves nothing, for the reason ``why``."""

    origins: frozenset[Origin]
    is_complete: bool
    records_read: int
    why: str = ""


class Sink(Protocol):
    """Where a link writes.

    What a sink must let the worker do about events that are in doubt: be read back (Kinesis), or drop a repetition by
    an id of ours (`SinkLimits.repeats_dropped_ms`; SQS FIFO: the origin as deduplication id, for its five minutes; a
    table of DynamoDB: the item's version, for ever). One that can do neither (EventBridge, standard SQS) gets them
    again, counted as possible duplicates.
    """

    @property
    def limits(self) -> SinkLimits: ...

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[Outcome]:
        """Store the entries, and say what became of each.

        ``signed_ms`` (now by default) dates the request: the receiver refuses it a fixed time later by its own clock,
        however long it was held up on the way (`core.in_doubt`). It must have been taken before the right to send was
        checked. Raises TransientError when nothing was stored (code ``late`` when the date had expired), InDoubt when
        nobody knows, Refused when the request as such is invalid, Misconfigured when an operator must act.
        """
        ...

    async def peer_time(self) -> PeerTime:
        """Bounds of the peer's clock, from what it says and the stated error. Raises TransientError."""
        ...

    async def refuses(self, dated_ms: int) -> bool:
        """Make a harmless call of this date: whether the peer refuses it as expired. Raises TransientError."""
        ...

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
        """Read what arrived since ``since_ms`` (peer's clock) up to the tip of every shard, through resharding.

        ``origin_of`` gives the origin of those records that are of interest; those in KPL aggregates are shown to it
        one by one. A shard that shows an arrival behind ``until_ms`` needs no further reading. Shards that could hold
        none of ``keys`` are left out. Not complete when a bound was met, or when the peer no longer keeps what is as
        old as ``since_ms``. Raises TransientError.
        """
        ...


class Bodies(Protocol):
    """Where bodies of events are kept that are too large for a sink (`core.claim_check`)."""

    async def put(self, name: str, body: bytes) -> None:
        """Store durably; safe to repeat: under a name is always the same. Raises TransientError, Misconfigured."""
        ...


# --- stores --------------------------------------------------------------------------------------------------------


class LeaseStore(Protocol):
    """Leases and checkpoints, one row a shard, every write conditional on what was read.

    Raises StoreUnavailable when the store doesn't answer.
    """

    async def rows(self, source: SourceName) -> Sequence[Lease]: ...

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        """Make an unowned row with epoch 0 unless there is one; safe to repeat."""
        ...

    async def acquire(self, seen: Lease, owner: str) -> Lease | None:
        """Take the lease under a grown epoch, provided nothing changed since ``seen``; None when somebody was faster.

        ``wanted_by`` is cleared, checkpoints stay as they are.
        """
        ...

    async def renew(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> Lease:
        """Beat, and store the given checkpoints (others stay). Raises Fenced when owner or epoch changed."""
        ...

    async def release(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> None:
        """Give the lease up and store the given checkpoints; ``wanted_by`` stays. Raises Fenced."""
        ...

    async def ask(self, seen: Lease, wanted_by: str) -> bool:
        """Ask the owner of ``seen`` for a handover; False when owner or epoch changed or somebody else asked before."""
        ...

    async def delete(self, seen: Lease) -> bool:
        """Remove an unowned row, provided nothing changed since ``seen``."""
        ...

    async def bulletin(self, source: SourceName) -> Bulletin | None:
        """What a worker last posted of the rows; a post made a moment ago may not be seen yet."""
        ...

    async def take_turn(self, source: SourceName, turn: int) -> bool:
        """Whether this turn is ours: so far nobody has taken it, nor one with a higher number."""
        ...

    async def post(self, source: SourceName, bulletin: Bulletin) -> None:
        """Put it in place of one with a lower number; nothing happens where a higher one stands."""
        ...

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        """The durable start position of a link: ``proposed`` the first time, then always what was stored then."""
        ...


class ClaimScope(Struct, frozen=True):
    """What one claim session covers: one link on one source shard of one incarnation."""

    link: LinkName
    shard: ShardId
    incarnation: str


class ClaimSession(Struct, frozen=True):
    """A fenced right to claim, from `ClaimStore.attach`.

    ``store`` is the incarnation of the store's own state; ``batch`` and ``settled`` are the numbers of the last batch
    and the last settlement so far; ``open_batches``: how many an earlier owner claimed and never settled;
    ``watermark``: what the store proves done (0: nothing); ``is_new`` when the store knew nothing of this scope;
    ``remembers_ms``: for so long after the attaching the store still knows what was settled last.
    """

    scope: ClaimScope
    epoch: int
    store: str
    batch: int
    open_batches: int
    watermark: SequenceNumber
    is_new: bool
    remembers_ms: int
    settled: int = 0


class ClaimStore(Protocol):
    """Idempotency state. Every method raises StoreUnavailable, and all but `attach` raise Fenced and ClaimsLost.

    Verdicts, a byte per claim: ``n`` new, ``d`` done within the window (same id, same bytes), ``c`` new although the
    same id was done with other bytes.
    """

    async def attach(self, scope: ClaimScope, epoch: int) -> ClaimSession:
        """Start a session; claims left open by earlier epochs are dropped. Raises Fenced after a higher epoch's."""
        ...

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        """Reserve ``len(claims) / 20`` distinct events as batch ``batch`` (the last one plus 1); safe to repeat."""
        ...

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
        """Mark the batch done but for the indices in ``undone``, which become absent again; safe to repeat.

        ``number``: of this settlement, higher than any before. ``after``: the last one answered; a store that does not
        know of it has lost it. ``may_wait``: a moment, for a call that would be made anyway.
        """
        ...

    async def forget(self, session: ClaimSession) -> None:
        """Drop all state of a shard that ended."""
        ...


class Quarantine(Protocol):
    """Where poison events are kept until they are redriven or dropped by a person."""

    async def put(self, event: Quarantined) -> None:
        """Store durably; safe to repeat. Raises StoreUnavailable: the event is not done then."""
        ...

    async def hold(self, link: LinkName, key: str) -> None:
        """Mark the key durably: its later events are put away too; safe to repeat. Raises StoreUnavailable."""
        ...

    async def held(self, link: LinkName) -> frozenset[str]:
        """`core.quarantine_document.key_digest` of every key that is marked. Raises StoreUnavailable."""
        ...

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        """The marked keys themselves, for people; reads every mark. Raises StoreUnavailable."""
        ...

    async def release(self, link: LinkName, key: str) -> bool:
        """Take the mark away; false when there was none. Raises StoreUnavailable."""
        ...


class Kept(Struct, frozen=True):
    """``total`` documents of a link, or more unless ``is_all``; ``newest``: as many as were asked for, newest first."""

    total: int
    newest: Sequence[Document]
    is_all: bool = True


class QuarantineReader(Protocol):
    """What people ask a quarantine. Every method raises StoreUnavailable."""

    async def kept(self, link: LinkName, newest: int) -> Kept:
        """Lists everything and reads as many documents as are asked for."""
        ...

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        """Those whose id (`core.quarantine_document.document_id`) begins so; lists everything."""
        ...

    async def names(self, link: LinkName) -> Sequence[str]:
        """What `load` and `remove` know the documents of a link by; lists everything."""
        ...

    async def load(self, name: str) -> Document: ...

    async def remove(self, name: str) -> None:
        """Safe to repeat."""
        ...


class LakeReader(Protocol):
    """What a replay asks a lake. Every method raises StoreUnavailable."""

    async def names(self, prefix: str) -> Sequence[str]:
        """Of all objects that begin so; without what all names of the lake begin with."""
        ...

    async def load(self, name: str) -> bytes:
        """As `core.lake.events_of` takes it, whatever format it is stored in."""
        ...


# --- telemetry -----------------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Metrics, recorded per batch. Names are without the ``replicator_`` prefix; labels are low in number."""

    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set the current value; NaN removes the series, because no data is not zero."""
        ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...
