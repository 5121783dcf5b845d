"""Who reads which shard: the rules by which the workers of a region share leases evenly.

How it works: every worker looks at all lease rows of a source and decides alone. A lease whose (owner, epoch, beat) has
not changed for ``duration_s`` on the observer's own monotonic clock has expired; clocks are never compared. Free and
expired leases are taken up to an even share. A worker below its share asks the most loaded one for a single lease; the
owner drains, releases, and the asker takes it.

Why it is safe: taking is a conditional write on exactly the row that was seen, and grows the epoch, so of several
takers one wins and everything the former owner writes afterwards is refused. Asking changes nothing but a wish. Why it
settles: a worker asks only while the other has at least two more than itself, so every move narrows the spread.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from hashlib import blake2b

from msgspec import Struct

from replicator.core.model import Lease, LinkName, ShardEnd, ShardId


class LeaseSettings(Struct, frozen=True):
    """``duration_s``: without a beat for so long a lease may be taken; ``renew_s``: how often the owner beats."""

    duration_s: float = 10.0
    renew_s: float = 3.0
    list_every: int = 10
    """Shards are listed every so many rounds, and at once when a shard has ended."""

    @property
    def give_up_s(self) -> float:
        """An owner that could not renew for so long stops by itself, before anybody may take the lease."""
        return self.duration_s * 0.8


class Observer:
    """Since when each lease row looks as it does, on the observer's own clock."""

    def __init__(self) -> None:
        self._seen: dict[ShardId, tuple[tuple[object, ...], float]] = {}

    def observe(self, rows: Iterable[Lease], now_s: float) -> None:
        """Take in a fresh listing; rows that are gone are forgotten."""
        self._seen = {row.shard: self._since(row, now_s) for row in rows}

    def _since(self, row: Lease, now_s: float) -> tuple[tuple[object, ...], float]:
        looks = (row.owner, row.epoch, row.beat, row.wanted_by)
        known = self._seen.get(row.shard)
        return known if known is not None and known[0] == looks else (looks, now_s)

    def age_s(self, shard: ShardId, now_s: float) -> float:
        """How long the row has looked like this; 0 for an unknown shard."""
        known = self._seen.get(shard)
        return now_s - known[1] if known is not None else 0.0


class LeasePlan(Struct, frozen=True):
    """What to do now: leases to take, and at most one to ask for."""

    take: tuple[Lease, ...] = ()
    ask: Lease | None = None


def is_finished(row: Lease, links: Collection[LinkName]) -> bool:
    """Every link of this source has done the whole shard."""
    return all(link in row.checkpoints and row.checkpoints[link].position == ShardEnd() for link in links)


def plan(
    rows: Collection[Lease],
    observer: Observer,
    me: str,
    now_s: float,
    settings: LeaseSettings,
    links: Collection[LinkName],
    holding: Collection[ShardId],
) -> LeasePlan:
    """The next moves of worker ``me``, which runs the shards in ``holding``; linear in the number of rows.

    A row may name ``me`` for a shard that is not run: the answer to its acquisition was lost, or it was given up while
    the store was away. Nobody beats for it, so it counts as free.
    """
    active = [row for row in rows if not is_finished(row, links)]
    held = [
        row
        for row in active
        if row.owner is not None
        and (row.shard in holding if row.owner == me else not _has_expired(row, observer, now_s, settings))
    ]
    loads = Counter(row.owner for row in held if row.owner is not None)
    mine = loads[me]
    workers = len(loads.keys() | {me})
    share = -(-len(active) // workers)
    taken = {row.shard for row in held}
    free = [row for row in active if row.shard not in taken] if mine < share else []
    free = [row for row in free if _may_take(row, observer, me, now_s, settings)]
    # The asker's own wishes come first; then an order of its own, so that workers do not race for the same row.
    free.sort(key=lambda row: (row.wanted_by != me, _order(me, row.shard)))
    take = tuple(free[: share - mine])
    if take:
        return LeasePlan(take)
    return LeasePlan(ask=_ask(held, loads, me))


def _has_expired(row: Lease, observer: Observer, now_s: float, settings: LeaseSettings) -> bool:
    return observer.age_s(row.shard, now_s) >= settings.duration_s


def _may_take(row: Lease, observer: Observer, me: str, now_s: float, settings: LeaseSettings) -> bool:
    """A lease released for somebody else is left to them for a while, not for ever."""
    if row.owner is None and row.wanted_by not in (None, me):
        return _has_expired(row, observer, now_s, settings)
    return True


def _ask(held: Collection[Lease], loads: Counter[str], me: str) -> Lease | None:
    """One lease of the most loaded worker that has at least two more than ``me``; none while an earlier wish stands."""
    if any(row.wanted_by == me for row in held) or not loads:
        return None
    most = max(loads.values())
    if most < loads[me] + 2:
        return None
    rows = [row for row in held if row.owner is not None and loads[row.owner] == most and row.wanted_by is None]
    return min(rows, key=lambda row: _order(me, row.shard), default=None)


def _order(me: str, shard: ShardId) -> bytes:
    return blake2b(f"{me}/{shard}".encode(), digest_size=8).digest()
