"""One history: regions with their streams and stores, the workers in them, producers, and disasters."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context, copy_context
from typing import Any

from msgspec import Struct

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.aws.lease_rows import Item
from replicator.core.model import Lease, SequenceNumber, ShardId
from replicator.core.quarantine_document import Quarantined
from replicator.core.topology import Topologies
from replicator.ports import Entry, SinkLimits
from replicator.worker.service import Service

from . import memory, ports
from .build import DRAIN_S, LEASES, Parts, make_service, peers, topologies
from .checker import END, Allowed, Checker
from .kpl_reading import aggregate, texts_of
from .loop import OWNER, Process, VirtualLoop
from .network import Network, Wire
from .scenario import IN_DOUBT_WAIT_S, LOAD_S, RECORD_BYTES_MAX, REFUSED, SIGNATURE_S, Event, Scenario
from .versions import Version

EPOCH_MS = 1_800_000_000_000
SETTLED_S = LOAD_S + 30 * IN_DOUBT_WAIT_S
"""When everything must be where it belongs."""
DRAINED_S = DRAIN_S + LEASES.duration_s + 10.0
"""How long a graceful stop may take, whatever is wrong with the services."""
TIMEOUTS_S = {"stream": 4.0, "leases": LEASES.answer_s * 2, "claims": 1.0, "quarantine": 2.0}


class Region:
    """What AWS keeps for a region, whatever happens to its workers."""

    def __init__(self, world: "World", name: str) -> None:
        plan = world.plan
        self.name = name
        self.skew_ms = plan.skews_ms[name]
        self.loop = world.loop
        self.hub = ports.Hub(self.now_ms, plan.shards[name], world.stored(name))
        self.hub.rng = random.Random(f"hub {plan.seed} {name}")
        self.leases = MemoryLeases()
        self.more: dict[ShardId, Item] = {}
        """Members of lease rows that the next version wrote."""
        self.claims = MemoryClaims(self.now_ms)
        self.claims_before = MemoryClaims(self.now_ms)
        """Of the previous version, in the same Redis under other names."""
        self.version: Version = "this"
        """Of workers that start now."""
        self.quarantine = MemoryQuarantine()
        self.paused: set[str] = set()
        """Peers whose links are paused by configuration."""

    def flush(self) -> None:
        self.claims.flush()
        self.claims_before.flush()

    def now_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + int(self.loop.now_s * 1000)


class Worker:
    """One worker process of a region."""

    def __init__(self, region: Region, name: str, context: Context, process: Process) -> None:
        self.region = region
        self.name = name
        self.context = context
        self.process = process
        self.service: Service
        self.task: asyncio.Task[None]
        self.stopping: asyncio.Task[None] | None = None
        self.stood_still = False
        self.version = region.version

    @property
    def is_alive(self) -> bool:
        return not self.process.is_dead and not self.task.done()


class Outcome(Struct, frozen=True):
    """How a history ended. ``trace`` tells it, a line an event of the world, when it was asked for or went wrong."""

    seed: int
    breaches: tuple[str, ...]
    counted: dict[str, int]
    totals: dict[str, int]
    trace: tuple[str, ...]
    ended_s: float
    steps: int


class World:
    def __init__(self, plan: Scenario, loop: VirtualLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.trace: list[tuple[float, str, tuple[object, ...]]] = []
        self.context = copy_context()
        self.network = Network(loop, self.context, plan.seed)
        self.tally = ports.Tally()
        allowed = Allowed(duplicates=plan.in_doubt == "resend" or plan.read_back_records_max < 1000)
        allowed.reordering = plan.ordering == "none"
        allowed.repeats = len(plan.kinds) > 1  # the window of event ids is a link's, and copies may take two ways
        holds_keys = plan.on_poison == "hold_key"
        self.checker = Checker(plan.regions, plan.kinds, allowed, holds_keys=holds_keys)
        self.producing: Sequence[Event] = ()
        starts_ms = EPOCH_MS + int(plan.changes_at_s * 1000)
        self.topologies = topologies(plan.regions, plan.kinds, starts_ms)
        self.regions = {name: Region(self, name) for name in plan.regions}
        self.workers: list[Worker] = []
        self.is_over = False
        self._names = iter(range(10_000))

    # --- what is seen ----------------------------------------------------------------------------------------------

    def note(self, what: str, *args: object) -> None:
        self.trace.append((self.loop.now_s, what, args))

    def breach(self, what: str) -> None:
        self.checker.breaches.append(f"{self.loop.now_s:9.3f} {what}")

    def stored(self, region: str) -> Callable[[ports.Hub, Entry, SequenceNumber], None]:
        def on_store(hub: ports.Hub, entry: Entry, sequence: SequenceNumber) -> None:
            shard = (str(hub.created_ms), hub.shard_of(entry.partition_key))
            place = (self.loop.now_s, region, shard, sequence, entry.partition_key)
            self.note("%s stores %s in %s: %s", region, entry.partition_key, shard[1][-2:], entry.data)
            for event in self.producing:
                self.checker.produced(*place, event.data, event.kind)
            for text in () if self.producing else texts_of(entry.data):
                if any(entry is copy for copy in hub.repeated):
                    self.checker.sent_twice(region, shard[0], text)
                self.checker.replicated(*place, text)

        return on_store

    def _denied(self, region: str) -> Callable[[Entry, int], None]:
        """What a request stored when it came first was refused when it came again, and the sender heard only that."""

        def on_denied(entry: Entry, created_ms: int) -> None:
            self.note("%s denies that it stores %s: %s", region, entry.partition_key, entry.data)
            for text in texts_of(entry.data):
                self.checker.sent_twice(region, str(created_ms), text)

        return on_denied

    def _lease_written(self, region: str) -> Callable[[Lease], None]:
        def on_written(row: Lease) -> None:
            self.note("%s lease %s of %s epoch %d: %s", region, row.shard[-2:], row.owner, row.epoch, row.checkpoints)
            for link, checkpoint in row.checkpoints.items():
                sequence = getattr(checkpoint.position, "sequence", None)
                if type(checkpoint.position).__name__ == "ShardEnd":
                    sequence = END
                if sequence is not None:
                    shard = (row.incarnation, row.shard)
                    self.checker.checkpointed(self.loop.now_s, region, shard, link.partition(":")[2], sequence)

        return on_written

    def _quarantined(self, region: str) -> Callable[[Quarantined], None]:
        def on_put(event: Quarantined) -> None:
            self.note("%s quarantines %s for %s: %s", region, event.data, event.link, event.reason)
            self.checker.quarantined(region, event.link.partition(":")[2], event.data)

        return on_put

    # --- workers ---------------------------------------------------------------------------------------------------

    def start_worker(self, region: str) -> Worker:
        name = f"{region}{next(self._names)}"
        process = Process(name)
        context = self.context.copy()
        context.run(OWNER.set, process)
        worker = Worker(self.regions[region], name, context, process)
        worker.service = context.run(self._make_service, worker)
        worker.task = self.loop.create_task(worker.service.run(), context=context)
        worker.task.add_done_callback(lambda task: self._ended(worker, task), context=self.context)
        self.workers.append(worker)
        self.note("%s starts, of %s version", name, worker.version)
        return worker

    def _known(self, region: str) -> Topologies:
        """What workers of the region that start now are configured with."""
        has_learnt = self.loop.now_s >= self.plan.learns_at_s.get(region, 0.0)
        return self.topologies if has_learnt else topologies(self.plan.regions, self.plan.kinds[:1], 0)

    def _make_service(self, worker: Worker) -> Service:
        region = worker.region

        def wire(service: str, at: str) -> Wire:
            target = f"{service}@{at}"
            return Wire(self.network, worker.process, region.name, target, TIMEOUTS_S[service])

        limits = SinkLimits(self.plan.records_max, 100_000, RECORD_BYTES_MAX)
        sinks: dict[str, Any] = {
            peer: ports.WireSink(
                self.regions[peer].hub,
                wire("stream", peer),
                limits,
                region.now_ms,
                SIGNATURE_S,
                REFUSED,
                self._denied(peer),
                worker.version,
            )
            for peer in peers(self._known(region.name), region.name)
        }
        parts = Parts(
            source=ports.WireSource(region.hub, wire("stream", region.name)),
            sinks=sinks,
            leases=ports.WireLeases(
                region.leases,
                wire("leases", region.name),
                self._lease_written(region.name),
                worker.version,
                region.more,
            ),
            claims=ports.WireClaims(
                region.claims_before if worker.version == "previous" else region.claims, wire("claims", region.name)
            ),
            quarantine=ports.WireQuarantine(
                region.quarantine, wire("quarantine", region.name), self._quarantined(region.name)
            ),
            clock=region,
            telemetry=self.tally,
        )
        paused, version = frozenset(region.paused), worker.version
        return make_service(self.plan, self._known(region.name), region.name, worker.name, parts, paused, version)

    def _ended(self, worker: Worker, task: "asyncio.Task[None]") -> None:
        if self.is_over:
            return
        self.note("%s ended", worker.name)
        if task.cancelled() or task.exception() is not None:
            self.breach(f"{worker.name} ended by itself: {task.exception()!r}")
        elif worker.stopping is None:
            self.breach(f"{worker.name} ended by itself")

    def worker_of(self, process: Process) -> Worker:
        return next(worker for worker in self.workers if worker.process is process)

    def alive(self, region: str | None = None) -> list[Worker]:
        return [w for w in self.workers if w.is_alive and region in (None, w.region.name)]

    def running(self) -> list[Worker]:
        """Those that are neither stopped nor on their way out."""
        return [w for w in self.alive() if not w.process.is_stopped and w.stopping is None]

    def kill(self, worker: Worker) -> None:
        self.note("%s is killed", worker.name)
        self.loop.kill_process(worker.process)

    def drain(self, worker: Worker) -> None:
        self.note("%s is asked to stop", worker.name)
        worker.stopping = self.loop.create_task(worker.service.drain(), context=worker.context)
        self.later(DRAINED_S, self._judge_drain, worker)

    def _judge_drain(self, worker: Worker) -> None:
        if worker.is_alive and not worker.stood_still and not self.is_over:
            self.breach(f"{worker.name} did not stop within {DRAINED_S:g} s")

    def pause(self, worker: Worker, length_s: float) -> None:
        self.note("%s stands still", worker.name)
        worker.stood_still = True
        self.loop.stop_process(worker.process)
        self.later(length_s, self.resume, worker)

    def resume(self, worker: Worker) -> None:
        self.note("%s goes on", worker.name)
        self.loop.resume_process(worker.process)

    def later(self, delay_s: float, what: Callable[..., object], *args: object) -> None:
        self.loop.call_later(delay_s, what, *args, context=self.context)

    def produce(self, *events: Event) -> None:
        """Events of one key and region, in one record."""
        self.producing = events
        key, texts = events[0].key, [event.data for event in events]
        try:
            data = texts[0] if len(texts) == 1 else aggregate(key, texts)
            self.regions[events[0].region].hub.store(Entry(data, key))
        finally:
            self.producing = ()

    # --- the end ---------------------------------------------------------------------------------------------------

    def unsettled(self) -> Iterator[str]:
        """What is not yet where it belongs, or not yet passed by a checkpoint."""
        yield from self.checker.missing.values()
        for region in self.regions.values():
            for shard in region.hub.list_shards():
                for peer in peers(self.topologies, region.name):
                    if not self.checker.is_passed(region.name, (str(region.hub.created_ms), shard.id), peer):
                        yield f"checkpoint of {region.name}/{shard.id} for the link to {peer}"

    def judge_memory(self) -> None:
        """By `memory.judge`; of workers that run, since nobody sees into one that stands still."""
        for worker in [] if self.is_over or self.checker.breaches else self.running():
            for what in memory.judge(worker.service, self.plan, worker.region.hub.largest_bytes):
                self.breach(f"{worker.name}: {what}")

    def outcome(self, *, has_trace: bool) -> Outcome:
        checker = self.checker
        told = self.trace if has_trace or checker.breaches else ()
        trace = tuple(f"{at_s:9.3f} {what % args}" for at_s, what, args in told)
        return Outcome(
            self.plan.seed,
            tuple(checker.breaches),
            dict(checker.counted),
            dict(sorted(self.tally.totals.items())),
            trace,
            self.loop.now_s,
            self.loop.steps,
        )
