"""What a worker remembers outside of itself: leases with their checkpoints, and claims."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from replicator.core.bulletin import Bulletin
from replicator.core.model import (
    Checkpoint,
    Lease,
    LinkName,
    Position,
    SequenceNumber,
    Shard,
    ShardId,
    SourceName,
)
from replicator.core.retention import Kept


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

    async def kept(self, source: SourceName) -> Kept | None:
        """What is known of the source's retention; None before the first `keep`."""
        ...

    async def keep(self, source: SourceName, kept: Kept) -> None:
        """Put it in place of one with an earlier time; nothing happens where one as late stands."""
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
    ``remembers_ms``: for so long after the attaching the store still knows what was settled last; ``attempt``: see
    `ClaimStore.attach`.
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
    attempt: int = 0


class ClaimStore(Protocol):
    """Idempotency state. Every method raises StoreUnavailable, and all but `attach` raise Fenced and ClaimsLost.

    Verdicts, a byte per claim: ``n`` new, ``d`` done within the window (same id, same bytes), ``c`` new although the
    same id was done with other bytes.
    """

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        """Start a session; claims left open by earlier ones are dropped. Raises Fenced after a higher epoch's.

        ``attempt`` grows with each attaching of an owner: what was sent in an earlier session has no effect any more,
        and an attaching that comes after a later one is answered by StoreUnavailable.
        """
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
