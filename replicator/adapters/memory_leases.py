"""Leases in memory: the twin of the DynamoDB table for simulation and tests, passing the same contract suite."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from replicator.core.bulletin import Bulletin
from replicator.core.model import Checkpoint, Lease, LinkName, Position, Shard, ShardId, SourceName
from replicator.core.retention import Kept
from replicator.errors import Fenced


class MemoryLeases:
    """Implements `ports.LeaseStore`. Every call is atomic, because none of them awaits."""

    def __init__(self) -> None:
        self._rows: dict[tuple[SourceName, ShardId], Lease] = {}
        self._starts: dict[tuple[SourceName, LinkName], Position] = {}
        self._bulletins: dict[SourceName, Bulletin] = {}
        self._turns: dict[SourceName, int] = {}
        self._kept: dict[SourceName, Kept] = {}

    async def rows(self, source: SourceName) -> Sequence[Lease]:
        return [row for (name, _), row in self._rows.items() if name == source]

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        self._rows.setdefault(
            (source, shard.id),
            Lease(source, shard.id, shard.parents, incarnation, None, 0, 0, None, {}),
        )

    async def acquire(self, seen: Lease, owner: str) -> Lease | None:
        row = self._rows.get((seen.source, seen.shard))
        if row is not None and (row.owner, row.epoch, row.beat) == (owner, seen.epoch + 1, seen.beat + 1):
            return row  # the answer to an earlier try was lost
        row = self._unchanged(seen)
        if row is None:
            return None
        return self._put(replace(row, owner=owner, epoch=row.epoch + 1, beat=row.beat + 1, wanted_by=None))

    async def renew(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> Lease:
        row = self._owned(held)
        return self._put(replace(row, beat=row.beat + 1, checkpoints={**row.checkpoints, **checkpoints}))

    async def release(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> None:
        row = self._rows.get((held.source, held.shard))
        if row is not None and (row.owner, row.epoch) == (None, held.epoch):
            return  # the answer to an earlier try was lost
        row = self._owned(held)
        stored = {**row.checkpoints, **checkpoints}
        self._put(replace(row, owner=None, beat=row.beat + 1, checkpoints=stored))

    async def ask(self, seen: Lease, wanted_by: str) -> bool:
        row = self._rows.get((seen.source, seen.shard))
        if row is None or row.owner is None or (row.owner, row.epoch) != (seen.owner, seen.epoch):
            return False
        if row.wanted_by not in (None, wanted_by):
            return False
        self._put(replace(row, wanted_by=wanted_by))
        return True

    async def delete(self, seen: Lease) -> bool:
        row = self._unchanged(seen)
        if row is None or row.owner is not None:
            return False
        del self._rows[(seen.source, seen.shard)]
        return True

    async def bulletin(self, source: SourceName) -> Bulletin | None:
        return self._bulletins.get(source)

    async def take_turn(self, source: SourceName, turn: int) -> bool:
        is_ours = self._turns.get(source, 0) < turn
        if is_ours:
            self._turns[source] = turn
        return is_ours

    async def post(self, source: SourceName, bulletin: Bulletin) -> None:
        posted = self._bulletins.get(source)
        if posted is None or posted.number < bulletin.number:
            self._bulletins[source] = bulletin

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        return self._starts.setdefault((source, link), proposed)

    async def kept(self, source: SourceName) -> Kept | None:
        return self._kept.get(source)

    async def keep(self, source: SourceName, kept: Kept) -> None:
        known = self._kept.get(source)
        if known is None or known.since_ms < kept.since_ms:
            self._kept[source] = kept

    def _unchanged(self, seen: Lease) -> Lease | None:
        """The stored row, when it is still as it was seen; checkpoints change with the beat only."""
        row = self._rows.get((seen.source, seen.shard))
        if row is None or replace(row, checkpoints={}) != replace(seen, checkpoints={}):
            return None
        return row

    def _owned(self, held: Lease) -> Lease:
        row = self._rows.get((held.source, held.shard))
        if row is None or (row.owner, row.epoch) != (held.owner, held.epoch):
            raise Fenced(f"lease {held.source}/{held.shard} of {held.owner}, epoch {held.epoch}, is no longer held")
        return row

    def _put(self, row: Lease) -> Lease:
        self._rows[(row.source, row.shard)] = row
        return row
