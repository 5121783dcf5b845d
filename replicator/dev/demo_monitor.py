"""What the workers say of their links, summed up per link over all workers of a region, living and dead."""

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass

from replicator.dev.environment import Environment
from replicator.dev.environment_worker import LinkStatus, WorkerStatus

PERIOD_S = 0.5
RATE_WINDOW = 6
"""Periods over which a rate is taken."""
STATES = ("down", "starting", "held", "in_doubt", "backing_off", "paused", "up")
"""From the worst; one that is not listed is worse still."""
FORWARDED = "events_forwarded_total"
POSSIBLE_DUPLICATES = "possible_duplicates_total"


@dataclass(frozen=True, slots=True)
class Row:
    """One link now. ``lag_ms`` is None while nobody knows; ``rate`` is events a second."""

    region: str
    peer: str
    forwarded: int
    rate: float
    lag_ms: int | None
    state: str


class Monitor:
    """`rows` and the totals are as of the last round of `run`."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._counts: dict[tuple[str, str, str], dict[str, int]] = {}
        """By (region, peer, worker): the last counts a worker told."""
        self._now: dict[tuple[str, str], list[LinkStatus]] = {}
        self._history: deque[tuple[float, Counter[tuple[str, str]]]] = deque(maxlen=RATE_WINDOW)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Ask every worker once."""
        workers = self._environment.workers()
        told = await asyncio.gather(*(self._environment.status(worker) for worker in workers))
        self._now = {}
        for status in told:
            if status is not None:
                self._take(status)
        self._history.append((time.monotonic(), self.forwarded()))

    def _take(self, status: WorkerStatus) -> None:
        for link in status.links.values():
            self._counts[status.region, link.peer, status.worker] = link.counts
            self._now.setdefault((status.region, link.peer), []).append(link)

    def forwarded(self) -> Counter[tuple[str, str]]:
        """Events sent so far, by (region, peer)."""
        return self._sums(FORWARDED)

    def possible_duplicates(self) -> int:
        """Events that workers sent without knowing whether they had been sent before."""
        return self._sums(POSSIBLE_DUPLICATES).total()

    def _sums(self, name: str) -> Counter[tuple[str, str]]:
        sums: Counter[tuple[str, str]] = Counter()
        for (region, peer, _), counts in self._counts.items():
            sums[region, peer] += counts.get(name, 0)
        return sums

    def rows(self) -> list[Row]:
        forwarded = self.forwarded()
        return [
            Row(region, peer, forwarded[region, peer], self._rate(region, peer), *self._health(region, peer))
            for region, peer in self._links()
        ]

    def _links(self) -> list[tuple[str, str]]:
        order = list(self._environment.regions)
        seen = {(region, peer) for region, peer, _ in self._counts}
        return sorted(seen, key=lambda link: (order.index(link[0]), order.index(link[1])))

    def _rate(self, region: str, peer: str) -> float:
        if len(self._history) < 2:
            return 0.0
        (from_s, before), (to_s, after) = self._history[0], self._history[-1]
        return max(0, after[region, peer] - before[region, peer]) / max(0.001, to_s - from_s)

    def _health(self, region: str, peer: str) -> tuple[int | None, str]:
        links = self._now.get((region, peer), [])
        if not links:
            is_up = self._environment.regions[region].is_up
            return None, "starting" if is_up else "down"
        lags = [link.lag_ms for link in links if link.lag_ms is not None]
        states = [link.state for link in links]
        return max(lags, default=None), min(states, key=lambda s: STATES.index(s) if s in STATES else -1)
