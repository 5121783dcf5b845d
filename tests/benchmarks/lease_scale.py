"""The rules of leasing at a size no test can start: hundreds of workers, thousands of shards, in virtual time.

    python -m tests.benchmarks.lease_scale [--workers 500] [--shards 10000] [--links 3] [--read-units-per-s 2000]

Runs `core.leasing.plan` and `core.lease_reading.pace` of every worker against one table, with beats, races, drains,
deaths, turns and posts, and tells how long the shards take to be read evenly, what the table has to bear, and how many
shards moved without need. ``--read-units-per-s inf`` lets everybody read the whole table every renewal period.
"""

import argparse
import heapq
import json
import random
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil

from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from replicator.aws.lease_rows import item_bytes, new_row, stored_checkpoint
from replicator.core.bulletin import encode
from replicator.core.lease_reading import UNIT_BYTES, Pace, pace
from replicator.core.leasing import LeaseSettings, Observer, View, known_workers, plan
from replicator.core.model import (
    After,
    Checkpoint,
    Lease,
    Lifetime,
    LinkName,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
)
from replicator.worker.listing import STALE, _is_later

SOURCE = SourceName("orders")
INCARNATION = "1763899200000"
READING_S = 0.05
"""From a worker's look at the table to its writes: others write meanwhile, and a condition fails."""
ROWS_READ_PER_S = 5000
"""By the one who reads them all: 1 MB a page, one after the other, and parsed."""
DRAIN_S = 1.0
WRITE_BYTES = 1024
LIMIT_S = 600.0


class Looks:
    """When a worker took in a listing, and when that was read: a post tells of an earlier moment."""

    def __init__(self) -> None:
        self.read_s: list[float] = []
        self.seen_s: list[float] = []

    def add(self, read_s: float, seen_s: float) -> None:
        self.read_s.append(read_s)
        self.seen_s.append(seen_s)
        del self.read_s[:-20], self.seen_s[:-20]


class SharedObserver(Observer):
    """What a worker's own observer would know, from what all share: when a row changed, and when this worker looked.

    500 observers with 10,000 rows each would be five million entries.
    """

    def __init__(self, changed_s: dict[ShardId, float], looks: Looks) -> None:
        super().__init__()
        self._changed_s = changed_s
        self._looks = looks

    def age_s(self, shard: ShardId, now_s: float) -> float:
        first = bisect_left(self._looks.read_s, self._changed_s[shard])
        return now_s - self._looks.seen_s[first] if first < len(self._looks.read_s) else 0.0


class Post(Struct, frozen=True):
    """A bulletin, as what it was made of."""

    number: int
    read_s: float
    rows: list[Lease]
    changed_s: dict[ShardId, float]
    size: int


class Worker:
    """What `worker.listing` keeps, and the shards that are run."""

    def __init__(self) -> None:
        self.held: set[ShardId] = set()
        self.looks = Looks()
        self.pace: Pace | None = None
        self.has_looked = False
        self.number = 0
        self.since_s = 0.0
        self.own: dict[ShardId, tuple[Lease, int]] = {}

    def wrote(self, row: Lease) -> None:
        self.own[row.shard] = (row, self.number + 2)

    def shows_own(self, rows: Iterable[Lease]) -> bool:
        self.own = {shard: own for shard, own in self.own.items() if self.number < own[1]}
        return all(_is_later(row, self.own[row.shard][0]) for row in rows if row.shard in self.own)


class Fleet:
    """Workers and the table they share."""

    def __init__(self, shards: int, links: int, settings: LeaseSettings, rng: random.Random) -> None:
        self.settings = settings
        self.rng = rng
        self.links = tuple(LinkName(f"orders:ap-southeast-{number}") for number in range(links))
        self.row_bytes = real_row_bytes(self.links)
        self.now_s = 0.0
        self.rows: dict[ShardId, Lease] = {}
        self.changed_s: dict[ShardId, float] = {}
        self.workers: dict[str, Worker] = {}
        self.post: Post | None = None
        self.turn = 0
        self.counts: Counter[str] = Counter()
        self.plan_s = 0.0
        self.ended = 0
        self.read_s: float | None = None
        """When all shards were first seen to have an owner, since it was set to None."""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self.add_shards(shards)

    def add_shards(self, count: int) -> None:
        places = {link: Checkpoint(After(SequenceNumber(5))) for link in self.links}
        for number in range(len(self.rows), len(self.rows) + count):
            shard = ShardId(f"shardId-{number:012d}")
            self._put(Lease(SOURCE, shard, (), INCARNATION, None, 0, 0, None, places))

    def split(self, count: int) -> None:
        """So many shards end, read to their ends and given back, and each has two children."""
        ended = {link: Checkpoint(ShardEnd()) for link in self.links}
        self.ended += count
        for row in self.rng.sample(list(self.rows.values()), count):
            if row.owner is not None:
                self.workers[row.owner].held.discard(row.shard)
            self._write(replace(row, owner=None, wanted_by=None, beat=row.beat + 1, checkpoints=ended))
        self.add_shards(2 * count)

    def start(self, count: int) -> None:
        for _ in range(count):
            name = f"ip-10-0-{self._made // 250}-{self._made % 250}.ec2.internal-7-{self._made:06x}"
            self._made += 1
            self.workers[name] = Worker()
            self.later(self.rng.random() * self.settings.renew_s, lambda name=name: self._round(name))

    def kill(self, worker: str) -> None:
        del self.workers[worker]

    def drain(self, worker: str) -> None:
        """A graceful stop: every shard is released, nobody is asked for."""
        for shard in self.workers[worker].held:
            self._write(replace(self.rows[shard], owner=None, beat=self.rows[shard].beat + 1))
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
                if self.read_s is None and self.is_read():
                    self.read_s = self.now_s
                if is_over():
                    return self.now_s - begun_s
        return float("inf")

    def is_read(self) -> bool:
        """Every shard that is not read to its end has a living owner."""
        return sum(len(worker.held) for worker in self.workers.values()) == len(self.rows) - self.ended

    def is_even(self) -> bool:
        """And no two owners differ by more than one."""
        loads = [len(worker.held) for worker in self.workers.values()]
        return self.is_read() and max(loads) - min(loads) <= 1

    # --- one worker's reading, as in `worker.listing` ----------------------------------------------------------------

    def _round(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is None:
            return
        if worker.pace is None:
            worker.pace = pace(len(self.rows), len(self.links), 0, self.settings)
        if not worker.pace.is_shared:
            self._read_table(name, worker)
        else:
            self._read_post(name, worker)
        self.later(worker.pace.period_s * (0.8 + 0.4 * self.rng.random()), lambda: self._round(name))

    def _read_post(self, name: str, worker: Worker) -> None:
        post = self.post
        self.counts["read_units"] += max(1, ceil((post.size if post is not None else 0) / UNIT_BYTES)) / 2
        is_first, worker.has_looked = not worker.has_looked, True
        if post is not None and post.number != worker.number:
            worker.number, worker.since_s = post.number, self.now_s
            self._learn(worker, post.rows)
            worker.looks.add(post.read_s, self.now_s)
            if worker.shows_own(post.rows) and not is_first:
                self._plan(name, worker, post.rows, post.changed_s, is_shared=True)
        elif post is None or (worker.pace and self.now_s - worker.since_s >= STALE * worker.pace.period_s):
            self._want_turn(name, worker)

    def _want_turn(self, name: str, worker: Worker) -> None:
        number = worker.number + 1
        self.counts["write_units"] += 1
        if number > self.turn:
            self.turn = number
            self.later(len(self.rows) / ROWS_READ_PER_S, lambda: self._publish(name, number, self.now_s))

    def _publish(self, name: str, number: int, read_s: float) -> None:
        worker = self.workers.get(name)
        if worker is None:
            self.turn = number - 1  # another passes it over; here at once, because it is rare
            return
        data = encode(list(self.rows.values()))
        assert data is not None
        self.counts["write_units"] += ceil(len(data) / WRITE_BYTES)
        self.post = Post(number, read_s, list(self.rows.values()), dict(self.changed_s), len(data))
        worker.number, worker.since_s = number, self.now_s
        self._read_table(name, worker)

    def _read_table(self, name: str, worker: Worker) -> None:
        self.counts["read_units"] += len(self.rows) * self.row_bytes / UNIT_BYTES
        rows = list(self.rows.values())
        self._learn(worker, rows)
        worker.looks.add(self.now_s, self.now_s)
        is_shared = worker.pace is not None and worker.pace.is_shared
        self._plan(name, worker, rows, self.changed_s, is_shared=is_shared)

    def _learn(self, worker: Worker, rows: list[Lease]) -> None:
        worker.pace = pace(len(rows), len(self.links), len(known_workers(rows)), self.settings)

    def _plan(
        self, name: str, worker: Worker, rows: list[Lease], changed_s: dict[ShardId, float], *, is_shared: bool = False
    ) -> None:
        observer = SharedObserver(changed_s, worker.looks)
        view = View(name, worker.held, observer, self.now_s, self.settings, is_shared)
        begun_s = time.process_time()
        moves = plan(rows, view, self.links)
        self.plan_s += time.process_time() - begun_s
        self.counts["plans"] += 1
        for row in moves.take:
            self.later(READING_S, lambda row=row: self._take(name, row))
        for row in moves.ask:
            self.later(READING_S, lambda row=row: self._ask(name, row))

    # --- one worker's leases -----------------------------------------------------------------------------------------

    def _take(self, name: str, seen: Lease) -> None:
        worker = self.workers.get(name)
        if worker is None or self.rows[seen.shard] is not seen:
            self._count_write()
            self.counts["races_lost"] += 1
            return
        self._write(replace(seen, owner=name, epoch=seen.epoch + 1, beat=seen.beat + 1, wanted_by=None))
        worker.held.add(seen.shard)
        worker.wrote(self.rows[seen.shard])
        self.counts["moves"] += 1
        self.later(self.settings.renew_s, lambda: self._beat(name, seen.shard))

    def _ask(self, name: str, seen: Lease) -> None:
        if name not in self.workers:
            return
        row = self.rows[seen.shard]
        self._count_write()
        if (row.owner, row.epoch) == (seen.owner, seen.epoch) and row.wanted_by in (None, name):
            self.rows[seen.shard] = replace(row, wanted_by=name)
            self.workers[name].wrote(self.rows[seen.shard])

    def _beat(self, name: str, shard: ShardId) -> None:
        row = self.rows[shard]
        if name not in self.workers or row.owner != name:
            return
        self._write(replace(row, beat=row.beat + 1))
        if row.wanted_by not in (None, name):
            self.later(DRAIN_S, lambda: self._release(name, shard))
        else:
            self.later(self.settings.renew_s, lambda: self._beat(name, shard))

    def _release(self, name: str, shard: ShardId) -> None:
        row = self.rows[shard]
        if name not in self.workers or row.owner != name:
            return
        self._write(replace(row, owner=None, beat=row.beat + 1))
        self.workers[name].held.discard(shard)
        self.workers[name].wrote(self.rows[shard])

    def _write(self, row: Lease) -> None:
        self._count_write()
        self._put(row)

    def _count_write(self) -> None:
        self.counts["writes"] += 1
        self.counts["write_units"] += ceil(self.row_bytes / WRITE_BYTES)

    def _put(self, row: Lease) -> None:
        self.rows[row.shard] = row
        self.changed_s[row.shard] = self.now_s


def real_row_bytes(links: tuple[LinkName, ...]) -> int:
    """Of a row as the adapter stores it, with names as ECS and Kinesis give them."""
    row = new_row(SOURCE, Shard(ShardId("shardId-000000004711")), INCARNATION)
    row |= {"owner": {"S": "ip-10-0-1-247.ec2.internal-7-0001f7"}, "epoch": {"N": "47"}, "beat": {"N": "471147"}}
    checkpoint = Checkpoint(After(SequenceNumber(4 * 10**55 + 7)), 1763899200000, None, Lifetime(30_000, 47))
    row["checkpoints"]["M"] = {link: {"M": stored_checkpoint(checkpoint)} for link in links}
    return item_bytes(row)


def story(fleet: Fleet, name: str, act: Callable[[], None], needed: int) -> dict[str, object]:
    """One chapter: something happens, and the fleet settles. Everything counts from when it begins to happen."""
    before, plan_s, begun_s = fleet.counts.copy(), fleet.plan_s, fleet.now_s
    act()
    fleet.read_s = None
    fleet.run_until(fleet.is_even)
    took_s = fleet.now_s - begun_s
    spent = fleet.counts - before
    periods = took_s / fleet.settings.renew_s
    plans = max(1, spent["plans"])
    chapter: dict[str, object] = {
        "what": name,
        "all read, s": round((fleet.read_s or fleet.now_s) - begun_s, 1),
        "even, s": round(took_s, 1),
        "periods": round(periods, 1),
        "read units/s": round(spent["read_units"] / took_s),
        "writes/s": round(spent["writes"] / took_s),
        "write units/s": round(spent["write_units"] / took_s),
        "moved": spent["moves"],
        "needed": needed,
        "races lost": spent["races_lost"],
        "plan, ms": round((fleet.plan_s - plan_s) / plans * 1000, 2),
    }
    print(json.dumps(chapter), file=sys.stderr, flush=True)  # a large fleet takes many minutes
    return chapter


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lease_scale")
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--links", type=int, default=3)
    parser.add_argument("--read-units-per-s", type=float, default=LeaseSettings().read_units_per_s)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    workers, shards = args.workers, args.shards
    rng = random.Random(args.seed)
    fleet = Fleet(shards, args.links, LeaseSettings(read_units_per_s=args.read_units_per_s), rng)
    fifth, tenth = workers // 5, shards // 10
    share = shards // workers

    def lose() -> None:
        for worker in rng.sample(sorted(fleet.workers), fifth):
            fleet.kill(worker)

    def deploy() -> None:
        """Old ones drain a few at a time, new ones start before."""
        old = sorted(fleet.workers)
        for number, worker in enumerate(old):
            fleet.later(number * 120 / len(old), lambda worker=worker: (fleet.start(1), fleet.drain(worker)))
        fleet.run_until(lambda: not any(worker in fleet.workers for worker in old))

    def rest() -> None:
        begun_s = fleet.now_s
        fleet.run_until(lambda: fleet.now_s >= begun_s + 60)

    chapters = [
        story(fleet, "start", lambda: fleet.start(workers), shards),
        story(fleet, "nothing happens for 60 s", rest, 0),
        story(fleet, f"loss of {fifth} workers", lose, fifth * share),
        story(fleet, f"{fifth} workers come", lambda: fleet.start(fifth), fifth * share),
        story(fleet, f"{tenth} shards are split", lambda: fleet.split(tenth), 2 * tenth),
        story(fleet, "rolling deploy in 120 s", deploy, shards + tenth),
    ]
    title = f"{workers} workers, {shards} shards, {args.links} links, rows of {fleet.row_bytes} bytes, renewal every "
    table = Table(*chapters[0], title=f"{title}{fleet.settings.renew_s:g} s")
    for chapter in chapters:
        table.add_row(*map(str, chapter.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
