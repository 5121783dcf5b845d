"""Who moves what, when all workers plan on the same rows: everyone deals the same cards and picks up his own.

How it works: a post of the lease rows (`core.bulletin`) is the same for all who read it. So each of them can work out
everybody's moves by one rule, and no two try to take the same lease or ask for the same one: what a leader would
decide, without one. The order in which workers are dealt to changes with every post.

Why it is safe and settles: it only chooses among moves that `core.leasing` allows. Whoever sees other rows (an older
post, a lease that has not expired on his clock) deals differently, and some writes fail; whoever does not pick up what
was dealt to him, because he is about to die, is dealt to elsewhere in the order with the next post.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from replicator.core.model import Lease

T = TypeVar("T")


def in_turn(workers: Collection[str], salt: int) -> list[str]:
    """All workers, in an order that depends on nothing but their names and the salt."""
    names = sorted(workers)
    first = salt % len(names) if names else 0
    return names[first:] + names[:first]


def dealt(free: Sequence[T], rooms: Mapping[str, int], order: Sequence[str], me: str) -> Sequence[T]:
    """My part of what is free, when everybody in ``order`` is dealt as many as he has room for."""
    start = 0
    for worker in order:
        room = max(0, rooms[worker])
        if worker == me:
            return free[start : start + room]
        start += room
    return ()


def asked(kept: Sequence[Lease], order: Sequence[str], me: str, *, ask_max: int) -> Iterator[Lease]:
    """What I ask for, when everybody asks for what he lacks of an even share of whoever will have the most.

    ``order``: the known workers, me among them.
    """
    later = Counter([row.wanted_by or row.owner for row in kept])
    share = len(kept) // len(order)
    free: dict[str, list[Lease]] = {}
    for row in kept:
        if row.wanted_by is None and row.owner is not None:
            free.setdefault(row.owner, []).append(row)
    place = {worker: number for number, worker in enumerate(order)}
    most = [(-later[owner], place[owner], owner) for owner in free]
    heapq.heapify(most)
    for worker in sorted(order, key=lambda worker: (later[worker], place[worker])):
        for _ in range(min(max(1, share - later[worker]), ask_max)):
            if not most or -most[0][0] < later[worker] + 2:
                return  # nobody after this one lacks more
            load, number, owner = heapq.heappop(most)
            chosen = free[owner].pop()
            if worker == me:
                yield chosen
            later[worker] += 1
            if free[owner]:
                heapq.heappush(most, (load + 1, number, owner))
