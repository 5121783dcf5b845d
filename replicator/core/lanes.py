"""Lanes: events of one key of one source shard on one link, at most one attempt in flight.

How it works: a lane has one head, and a queue of what waits behind it once there is something. Only the head may be
taken, and its lane has no other until the attempt is done or put back. A request therefore never holds two records of a
key, and two requests under way at the same time never share a key.

With aggregation further items of a lane join its head in one record, which the peer stores whole or not at all; they
are one attempt.

Why it is safe: a later event of a key becomes a head only when the one before it was reported done (stored,
quarantined or dropped), so whatever order the peer gives to the entries of a request, or to requests, no event can
overtake an earlier one of its key. An attempt whose outcome is unknown keeps its lane busy: nothing of that key moves
until somebody has found out.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Items wait in their lane until `take` hands out heads; `done` or `put_back` frees the lane again.

    ``lane_of`` names an item's lane; it is asked more than once, and answers the same.
    """

    def __init__(self, lane_of: Callable[[T], object], size_of: Callable[[T], int]) -> None:
        self._lane_of = lane_of
        self._size_of = size_of
        self._behind: dict[object, deque[T] | None] = {}
        """Of every lane that has a head, ready, resting or taken: what waits behind it."""
        self._ready: deque[T] = deque()
        self._resting: list[tuple[float, int, T]] = []
        self._rests = 0
        self.waiting = 0
        """Items not taken yet."""

    def add(self, items: Sequence[T]) -> None:
        """Queue items behind the earlier ones of their lanes."""
        lanes, ready = self._behind, self._ready
        for lane, item in zip(map(self._lane_of, items), items, strict=True):
            if lane not in lanes:
                lanes[lane] = None
                ready.append(item)
            else:
                self._queue(lane).append(item)
        self.waiting += len(items)

    def _queue(self, lane: object) -> deque[T]:
        queue = self._behind[lane]
        if queue is None:
            queue = self._behind[lane] = deque()
        return queue

    def take(self, items_max: int, bytes_max: int, now_s: float) -> list[T]:
        """Heads of ready lanes, oldest lane first, within both bounds (one item is always allowed)."""
        self._wake(now_s)
        ready, size_of = self._ready, self._size_of
        taken: list[T] = []
        room = bytes_max
        while ready and len(taken) < items_max:
            room -= size_of(ready[0])
            if room < 0 and taken:
                break
            taken.append(ready.popleft())
        self.waiting -= len(taken)
        return taken

    def take_more(self, head: T, admits: Callable[[T], bool]) -> list[T]:
        """Items behind a head that was just taken, in order, up to the first that is not admitted: one attempt."""
        queue = self._behind[self._lane_of(head)]
        taken: list[T] = []
        while queue and admits(queue[0]):
            taken.append(queue.popleft())
        self.waiting -= len(taken)
        return taken

    def done(self, heads: Iterable[T]) -> None:
        """The attempts at these heads have ended for good; the next item of each lane becomes ready."""
        lanes = self._behind
        for lane in map(self._lane_of, heads):
            queue = lanes[lane]
            if queue:
                self._ready.append(queue.popleft())
            else:
                del lanes[lane]

    def put_back(self, head: T, *, joined: Sequence[T] = (), not_before_s: float | None = None) -> None:
        """The attempt failed without effect: ``head`` is the head again, what had ``joined`` it waits behind it, and
        the lane rests until ``not_before_s``."""
        self.waiting += 1 + len(joined)
        if joined:
            self._queue(self._lane_of(head)).extendleft(reversed(joined))
        if not_before_s is None:
            self._ready.append(head)
        else:
            self._rests += 1
            heapq.heappush(self._resting, (not_before_s, self._rests, head))

    def next_wake_s(self) -> float | None:
        """When the first resting lane becomes ready; None when none rests."""
        return self._resting[0][0] if self._resting else None

    @property
    def depth_max(self) -> int:
        """The longest lane, its head included: so many round trips if each moves one item."""
        return max([1 + len(queue or ()) for queue in self._behind.values()], default=0)

    def _wake(self, now_s: float) -> None:
        while self._resting and self._resting[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._resting)[2])
