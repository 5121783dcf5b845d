"""Lanes: events of one key of one source shard on one link, at most one attempt in flight.

How it works: every key has a queue. Only the head of a queue may be taken, and taking it makes the lane busy until
the attempt is done or put back. A request therefore never holds two records of a key, and two requests under way at
the same time never share a key.

With aggregation further items of a lane join its head in one record, which the peer stores whole or not at all; they
are one attempt.

Why it is safe: a later event of a key becomes a head only when the one before it was reported done (stored,
quarantined or dropped), so whatever order the peer gives to the entries of a request, or to requests, no event can
overtake an earlier one of its key. An attempt whose outcome is unknown keeps its lane busy: nothing of that key moves
until somebody has found out.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Items wait in their lane until `take` hands out heads; `done` or `put_back` frees the lane again."""

    def __init__(self, size_of: Callable[[T], int]) -> None:
        self._size_of = size_of
        self._queues: dict[object, deque[T]] = {}
        self._ready: deque[object] = deque()
        self._resting: list[tuple[float, int, object]] = []
        self._rests = 0
        self.waiting = 0
        """Items not taken yet."""

    def add(self, key: object, item: T) -> None:
        """Queue an item behind the earlier ones of its key."""
        self.waiting += 1
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(item)
            return
        self._queues[key] = deque((item,))
        self._ready.append(key)

    def take(self, items_max: int, bytes_max: int, now_s: float) -> list[tuple[object, T]]:
        """Heads of ready lanes, oldest lane first, within both bounds (one item is always allowed)."""
        self._wake(now_s)
        taken: list[tuple[object, T]] = []
        room = bytes_max
        while self._ready and len(taken) < items_max:
            key = self._ready[0]
            item = self._queues[key][0]
            room -= self._size_of(item)
            if room < 0 and taken:
                break
            self._ready.popleft()
            self._queues[key].popleft()
            taken.append((key, item))
        self.waiting -= len(taken)
        return taken

    def take_more(self, key: object, admits: Callable[[T], bool]) -> list[T]:
        """Items behind a head that was just taken, in order, up to the first that is not admitted: one attempt."""
        queue = self._queues[key]
        taken: list[T] = []
        while queue and admits(queue[0]):
            taken.append(queue.popleft())
        self.waiting -= len(taken)
        return taken

    def give_back(self, key: object, items: Sequence[T]) -> None:
        """What `take_more` took is queued again, before the head is put back."""
        self._queues[key].extendleft(reversed(items))
        self.waiting += len(items)

    def done(self, key: object) -> None:
        """The attempt at the lane's head has ended for good; the next item of the key becomes ready."""
        if self._queues[key]:
            self._ready.append(key)
        else:
            del self._queues[key]

    def put_back(self, key: object, item: T, not_before_s: float | None = None) -> None:
        """The attempt failed without effect: the item is the head again, and rests until ``not_before_s``."""
        self._queues[key].appendleft(item)
        self.waiting += 1
        if not_before_s is None:
            self._ready.append(key)
        else:
            self._rests += 1
            heapq.heappush(self._resting, (not_before_s, self._rests, key))

    def next_wake_s(self) -> float | None:
        """When the first resting lane becomes ready; None when none rests."""
        return self._resting[0][0] if self._resting else None

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    @property
    def depth_max(self) -> int:
        """The longest queue: so many round trips until the hottest key is served, if each moves one item."""
        return max(map(len, self._queues.values()), default=0)

    def _wake(self, now_s: float) -> None:
        while self._resting and self._resting[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._resting)[2])
