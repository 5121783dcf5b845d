"""Where events come from and where they go: sources and sinks."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.core.model import (
    After,
    Origin,
    Position,
    Record,
    Shard,
    ShardId,
)
from replicator.core.outcome import Outcome
from replicator.core.peer_clock import PeerTime


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


class QueueTroubles(Struct):
    """Of messages: how many can't be kept from others any longer, and how many were received for the last time before
    they leave the queue undone. ``in_flight``: received and not deleted, by everybody; None when that is not known."""

    kept_no_longer: int = 0
    last_receives: int = 0
    in_flight: int | None = None


class Queue(Protocol):
    """What a source that forgets what is done needs to be told."""

    def done(self, position: Position) -> None:
        """Everything up to the position is settled: it need not come again."""
        ...

    def troubles(self) -> QueueTroubles:
        """Since the last call."""
        ...

    async def run(self, is_held: Callable[[], bool]) -> None:
        """Delete what is done, and keep what is not from others while the lease ``is_held``; until cancelled."""
        ...


class Entry(Struct, frozen=True, gc=False):
    """What a sink stores: the event's bytes with the tag inside, under the source's partition key."""

    data: bytes
    partition_key: str

    @property
    def size_bytes(self) -> int:
        """As limits count it, see `SinkLimits`."""
        return len(self.data) + len(self.partition_key.encode())


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
