"""Who reads which shard: the rules by which the workers of a region share leases evenly.

How it works: every worker looks at all lease rows of a source and decides alone. A lease whose (owner, epoch, beat) has
not changed for ``duration_s`` on the observer's own monotonic clock has expired; clocks are never compared. Free and
expired leases are taken up to an even share, at first a few, then as many as the worker has already, so that workers
that start together see each other before one has everything. A worker below its share asks the most loaded ones for
what it lacks; the owners drain, release, and the asker takes. A released lease is kept for its asker for
``duration_s``, then it is anybody's: an asker that died blocks nothing.

Why it is safe: taking is a conditional write on exactly the row that was seen, and grows the epoch, so of several
takers one wins and everything the former owner writes afterwards is refused. Asking changes nothing but a wish. An
owner that could not renew stops after ``give_up_s`` on its own clock, counted from before its last good write began; an
observer counts ``duration_s`` from after it first saw that write until before it takes the lease, and takes it only if
the row is still as that write left it, whatever the listing said that made it try. So the owner has stopped before
another may start, unless its whole process stood still. A listing may therefore be an old one (`core.bulletin`).

Why it settles: as long as a lease is free, somebody is below an even share of all leases and takes it. Each lease is
asked for only while its owner has, with all standing wishes fulfilled, at least two more than the asker, so every move
narrows the spread. Who asks counts as a worker from its first wish on, and that is a single one: nobody asks for the
share of others that it can't see yet.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from math import gcd
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from replicator.core.dealing import asked, dealt, in_turn
from replicator.core.model import Checkpoint, Lease, LinkName, ShardEnd, ShardId

T = TypeVar("T")

TAKE_FIRST = 16
"""Leases that a worker without any takes in one round."""
ASK_MAX = 10
"""Leases that are asked for in one round."""


class LeaseSettings(Struct, frozen=True):
    """``duration_s``: without a beat for so long a lease may be taken; ``renew_s``: how often the owner beats."""

    duration_s: float = 10.0
    renew_s: float = 3.0
    list_every: int = 10
    """Shards are listed every so many rounds, and at once when a shard has ended."""
    read_units_per_s: float = 2000.0
    """What all workers of the region together may read of one source's leases, in DynamoDB's read units a second."""

    @property
    def give_up_s(self) -> float:
        """An owner that could not renew for so long stops by itself, before anybody may take the lease."""
        return self.duration_s * 0.8

    @property
    def answer_s(self) -> float:
        """How long one call to the lease store may take: a renewal that fails can be repeated before `give_up_s`."""
        return self.duration_s * 0.3


class Observer:
    """Since when each lease row looks as it does, on the observer's own clock."""

    def __init__(self) -> None:
        self._seen: dict[ShardId, tuple[str | None, int, int, float]] = {}

    def observe(self, rows: Iterable[Lease], now_s: float) -> None:
        """Take in a listing, ``now_s`` being a moment after it was read; rows that are gone are forgotten."""
        known, seen = self._seen, {}
        for row in rows:
            owner, epoch, beat = row.owner, row.epoch, row.beat
            before = known.get(row.shard)
            is_as_before = before is not None and before[2] == beat and before[1] == epoch and before[0] == owner
            seen[row.shard] = before if is_as_before and before is not None else (owner, epoch, beat, now_s)
        self._seen = seen

    def age_s(self, shard: ShardId, now_s: float) -> float:
        """How long the row has looked like this; not above 0 for one just seen, 0 for an unknown shard."""
        known = self._seen.get(shard)
        return now_s - known[3] if known is not None else 0.0


class View(Struct, frozen=True):
    """What one worker knows: itself, the shards it runs, and since when every row looks as it does.

    ``now_s`` is a moment before anything is done about the rows, on the clock of the ``observer``.
    """

    me: str
    running: Collection[ShardId]
    observer: Observer
    now_s: float
    settings: LeaseSettings
    is_shared: bool = False
    """Others plan on the very same rows (`core.dealing`)."""

    def has_expired(self, row: Lease) -> bool:
        return self.observer.age_s(row.shard, self.now_s) >= self.settings.duration_s

    def is_kept(self, row: Lease) -> bool:
        """Somebody owns the lease and beats.

        A row may name ``me`` for a shard that is not run: the answer to its acquisition was lost, or it was given up
        while the store was away. Nobody beats for it, so it is free.
        """
        if row.owner == self.me:
            return row.shard in self.running
        return row.owner is not None and not self.has_expired(row)

    def is_granted(self, row: Lease) -> bool:
        """Of a row that nobody keeps: it was released for somebody and is left to them for a while, not for ever."""
        return row.owner is None and row.wanted_by is not None and not self.has_expired(row)


class LeasePlan(Struct, frozen=True):
    """What to do now: leases to take, and leases to ask for."""

    take: tuple[Lease, ...] = ()
    ask: tuple[Lease, ...] = ()


def is_finished(row: Lease, links: Collection[LinkName]) -> bool:
    """Every link of this source has done the whole shard."""
    for link in links:
        checkpoint = row.checkpoints.get(link)
        if checkpoint is None or not isinstance(checkpoint.position, ShardEnd):
            return False
    return True


def plan(rows: Iterable[Lease], view: View, links: Collection[LinkName]) -> LeasePlan:
    """The next moves of worker ``view.me``; linear in the number of rows."""
    kept: list[Lease] = []
    free: list[Lease] = []
    granted: dict[str | None, list[Lease]] = {}
    active = 0
    for row in rows:
        if is_finished(row, links):
            continue
        active += 1
        if view.is_kept(row):
            kept.append(row)
        elif row.shard in view.running:
            continue  # taken since the rows were read
        elif view.is_granted(row):
            granted.setdefault(row.wanted_by, []).append(row)
        else:
            free.append(row)
    return _moves(kept, free, granted, active, view)


def _moves(
    kept: Sequence[Lease], free: Sequence[Lease], granted: Mapping[str | None, Sequence[Lease]], active: int, view: View
) -> LeasePlan:
    me = view.me
    known = known_workers(kept)
    workers = known | {me}
    loads = Counter([row.owner for row in kept])
    share = -(-active // len(workers))
    rooms = {
        worker: min(share - loads[worker], max(TAKE_FIRST, loads[worker])) - len(granted.get(worker, ()))
        for worker in workers
    }
    is_dealt = view.is_shared and me in known
    order = in_turn(known, sum(row.beat for row in kept)) if is_dealt else ()
    others = dealt(free, rooms, order, me) if is_dealt else scattered(free, me, rooms[me])
    # What was released for us comes first, whatever our share is by now: nobody else reads it.
    take = (*granted.get(me, ()), *others)
    if take or loads[me] >= share:
        return LeasePlan(take)
    return LeasePlan(ask=tuple(asked(kept, order, me, ask_max=ASK_MAX) if is_dealt else _ask(kept, len(workers), me)))


def known_workers(rows: Iterable[Lease]) -> set[str]:
    """Who owns a lease or asks for one."""
    names: set[str | None] = set()
    for row in rows:
        names.add(row.owner)
        names.add(row.wanted_by)
    return {name for name in names if name is not None}


def _ask(kept: Collection[Lease], workers: int, me: str) -> Iterator[Lease]:
    """What ``me`` lacks of an even share, one by one of whoever will have the most; a single one at first."""
    later = Counter([row.wanted_by or row.owner for row in kept])
    lacking = len(kept) // workers - later[me] if later[me] else 1
    free: dict[str, list[Lease]] = {}
    for row in kept:
        if row.wanted_by is None and row.owner is not None:
            free.setdefault(row.owner, []).append(row)
    # Among equals each worker has an order of its own, so that workers do not all ask the same one.
    most = [(-later[owner], _order(me, owner), owner) for owner in free]
    heapq.heapify(most)
    for _ in range(min(max(1, lacking), ASK_MAX)):
        if not most or -most[0][0] < later[me] + 2:
            return
        load, order, owner = heapq.heappop(most)
        [chosen] = scattered(free[owner], me, 1)
        yield chosen
        free[owner].remove(chosen)
        later[me] += 1
        if free[owner]:
            heapq.heappush(most, (load + 1, order, owner))


def _order(me: str, name: str) -> bytes:
    return blake2b(f"{me}/{name}".encode(), digest_size=8).digest()


def scattered(items: Sequence[T], me: str, count: int) -> list[T]:
    """At most ``count`` of them, by a start and a step of ``me``'s own, so that workers do not race for the same."""
    if not items or count <= 0:
        return []
    size = len(items)
    drawn = int.from_bytes(_order(me, ""), "big")
    start, step = drawn % size, 1 + (drawn >> 32) % size
    while gcd(step, size) != 1:
        step += 1
    return [items[(start + turn * step) % size] for turn in range(min(count, size))]


def parents_done(lease: Lease, link: LinkName, rows: Mapping[ShardId, Lease], listed: Collection[ShardId]) -> bool:
    """Whether the link has finished every parent of the shard.

    A parent without a row counts as finished when the source no longer lists it; while it is listed, its row is yet to
    be made. ``listed`` must be newer than the shard itself, or a parent not listed yet would pass for one long gone.
    """
    for parent in lease.parents:
        row = rows.get(parent)
        if row is None:
            if parent in listed:
                return False
        elif link not in row.checkpoints or row.checkpoints[link].position != ShardEnd():
            return False
    return True


def without_marks(checkpoints: Mapping[LinkName, Checkpoint]) -> dict[LinkName, Checkpoint]:
    """What a crashed shard is released with: places, but no word that nothing is in doubt."""
    return {link: replace(checkpoint, released=None) for link, checkpoint in checkpoints.items()}
