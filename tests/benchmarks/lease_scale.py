"""The rules of leasing at a size no test can start: hundreds of workers, thousands of shards, in virtual time.

    python -m tests.benchmarks.lease_scale [--workers 500] [--shards 10000]

Runs `core.leasing.plan` of every worker against one table, with beats, races, drains and deaths, and tells how long the
shards take to be read evenly, what the table has to bear, and how many shards moved without need.
"""

import argparse
import heapq
import json
import random
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from replicator.core.leasing import LeaseSettings, Observer, View, plan
from replicator.core.model import After, Checkpoint, Lease, LinkName, SequenceNumber, ShardId, SourceName

LINK = LinkName("orders:eu-west-1")
READING_S = 0.05
"""From a worker's look at the table to its writes: others write meanwhile, and a condition fails."""
DRAIN_S = 1.0
ROW_BYTES = 500
UNIT_BYTES = 4096
LIMIT_S = 600.0


class SharedObserver(Observer):
    """What a worker's own observer would know, from what all share: when a row changed, and when this worker looked.

    500 observers with 10,000 rows each would be five million entries.
    """

    def __init__(self, changed_s: dict[ShardId, float], looks_s: list[float]) -> None:
        super().__init__()
        self._changed_s = changed_s
        self._looks_s = looks_s

    def age_s(self, shard: ShardId, now_s: float) -> float:
        first = bisect_left(self._looks_s, self._changed_s[shard])
        return now_s - self._looks_s[first] if first < len(self._looks_s) else 0.0


class Fleet:
    """Workers and the table they share."""

    def __init__(self, shards: int, settings: LeaseSettings, rng: random.Random) -> None:
        self.settings = settings
        self.rng = rng
        self.now_s = 0.0
        self.rows: dict[ShardId, Lease] = {}
        self.changed_s: dict[ShardId, float] = {}
        self.held: dict[str, set[ShardId]] = {}
        self.looks_s: dict[str, list[float]] = {}
        self.counts: Counter[str] = Counter()
        self.plan_s = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self.add_shards(shards)

    def add_shards(self, count: int) -> None:
        for number in range(len(self.rows), len(self.rows) + count):
            shard = ShardId(f"shardId-{number:012d}")
            self._put(Lease(SourceName("orders"), shard, (), "1", None, 0, 0, None, {LINK: _place()}))

    def start(self, count: int) -> None:
        for _ in range(count):
            worker = f"worker-{self._made}"
            self._made += 1
            self.held[worker] = set()
            self.looks_s[worker] = []
            self.later(self.rng.random() * self.settings.renew_s, lambda worker=worker: self._round(worker))

    def kill(self, worker: str) -> None:
        del self.held[worker]

    def drain(self, worker: str) -> None:
        """A graceful stop: every shard is released, nobody is asked for."""
        for shard in self.held[worker]:
            self._put(replace(self.rows[shard], owner=None, beat=self.rows[shard].beat + 1))
            self.counts["writes"] += 1
        self.kill(worker)

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        self.counts["acts"] += 1
        heapq.heappush(self._agenda, (self.now_s + delay_s, self.counts["acts"], act))

    def run_until(self, is_over: Callable[[], bool]) -> float:
        """How long it took, in virtual seconds; infinite beyond `LIMIT_S`."""
        begun_s = checked_s = self.now_s
        while self.now_s - begun_s < LIMIT_S:
            self.now_s, _, act = heapq.heappop(self._agenda)
            act()
            if self.now_s - checked_s >= 0.5:
                checked_s = self.now_s
                if is_over():
                    return self.now_s - begun_s
        return float("inf")

    def is_even(self) -> bool:
        """Every shard has a living owner, and no two owners differ by more than one."""
        loads = [len(shards) for shards in self.held.values()]
        return sum(loads) == len(self.rows) and max(loads) - min(loads) <= 1

    # --- one worker ------------------------------------------------------------------------------------------------

    def _round(self, worker: str) -> None:
        if worker not in self.held:
            return
        self.looks_s[worker].append(self.now_s)
        del self.looks_s[worker][:-20]
        self.counts["read_units"] += len(self.rows) * ROW_BYTES // UNIT_BYTES // 2
        observer = SharedObserver(self.changed_s, self.looks_s[worker])
        view = View(worker, self.held[worker], observer, self.now_s, self.settings)
        begun_s = time.process_time()
        moves = plan(self.rows.values(), view, (LINK,))
        self.plan_s += time.process_time() - begun_s
        self.counts["plans"] += 1
        for row in moves.take:
            self.later(READING_S, lambda row=row: self._take(worker, row))
        for row in moves.ask:
            self.later(READING_S, lambda row=row: self._ask(worker, row))
        self.later(self.settings.renew_s * (0.8 + 0.4 * self.rng.random()), lambda: self._round(worker))

    def _take(self, worker: str, seen: Lease) -> None:
        self.counts["writes"] += 1
        if worker not in self.held or self.rows[seen.shard] is not seen:
            self.counts["races_lost"] += 1
            return
        self._put(replace(seen, owner=worker, epoch=seen.epoch + 1, beat=seen.beat + 1, wanted_by=None))
        self.held[worker].add(seen.shard)
        self.counts["moves"] += 1
        self.later(self.settings.renew_s, lambda: self._beat(worker, seen.shard))

    def _ask(self, worker: str, seen: Lease) -> None:
        self.counts["writes"] += 1
        row = self.rows[seen.shard]
        if (row.owner, row.epoch) == (seen.owner, seen.epoch) and row.wanted_by in (None, worker):
            self.rows[seen.shard] = replace(row, wanted_by=worker)

    def _beat(self, worker: str, shard: ShardId) -> None:
        row = self.rows[shard]
        if worker not in self.held or row.owner != worker:
            return
        self.counts["writes"] += 1
        self._put(replace(row, beat=row.beat + 1))
        if row.wanted_by not in (None, worker):
            self.later(DRAIN_S, lambda: self._release(worker, shard))
        else:
            self.later(self.settings.renew_s, lambda: self._beat(worker, shard))

    def _release(self, worker: str, shard: ShardId) -> None:
        row = self.rows[shard]
        if worker not in self.held or row.owner != worker:
            return
        self.counts["writes"] += 1
        self._put(replace(row, owner=None, beat=row.beat + 1))
        self.held[worker].discard(shard)

    def _put(self, row: Lease) -> None:
        self.rows[row.shard] = row
        self.changed_s[row.shard] = self.now_s


def _place() -> Checkpoint:
    return Checkpoint(After(SequenceNumber(5)))


def story(fleet: Fleet, workers: int, name: str, act: Callable[[], None], needed: int) -> dict[str, object]:
    """One chapter: something happens, and the fleet settles. Everything counts from when it begins to happen."""
    before, plan_s, begun_s = fleet.counts.copy(), fleet.plan_s, fleet.now_s
    act()
    fleet.run_until(fleet.is_even)
    took_s = fleet.now_s - begun_s
    spent = fleet.counts - before
    periods = took_s / fleet.settings.renew_s
    plans = max(1, spent["plans"])
    return {
        "what": name,
        "seconds": round(took_s, 1),
        "periods": round(periods, 1),
        "reads, units/s": round(spent["read_units"] / took_s),
        "writes/s": round(spent["writes"] / took_s),
        "moved": spent["moves"],
        "needed": needed,
        "races lost": spent["races_lost"],
        "plan, ms": round((fleet.plan_s - plan_s) / plans * 1000, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lease_scale")
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    workers, shards = args.workers, args.shards
    rng = random.Random(args.seed)
    fleet = Fleet(shards, LeaseSettings(), rng)
    fifth, tenth = workers // 5, shards // 10
    share = shards // workers

    def lose() -> None:
        for worker in rng.sample(sorted(fleet.held), fifth):
            fleet.kill(worker)

    def deploy() -> None:
        """Old ones drain a few at a time, new ones start before."""
        old = sorted(fleet.held)
        for number, worker in enumerate(old):
            fleet.later(number * 120 / len(old), lambda worker=worker: (fleet.start(1), fleet.drain(worker)))
        fleet.run_until(lambda: not any(worker in fleet.held for worker in old))

    chapters = [
        story(fleet, workers, "start", lambda: fleet.start(workers), shards),
        story(fleet, workers, f"loss of {fifth} workers", lose, fifth * share),
        story(fleet, workers, f"{fifth} workers come", lambda: fleet.start(fifth), fifth * share),
        story(fleet, workers, f"{tenth} new shards", lambda: fleet.add_shards(tenth), tenth),
        story(fleet, workers, "rolling deploy in 120 s", deploy, shards + tenth),
    ]
    table = Table(*chapters[0], title=f"{workers} workers, {shards} shards, renewal every {fleet.settings.renew_s:g} s")
    for chapter in chapters:
        table.add_row(*map(str, chapter.values()))
    Console(width=140).print(table)
    print(json.dumps(chapters))


if __name__ == "__main__":
    main()
