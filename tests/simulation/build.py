"""The one place that puts a worker together from its parts, as `replicator.bootstrap` does for the real ones."""

import random

from msgspec import Struct

from replicator.core.formats import make_format
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Position, Region, SourceName, TrimHorizon
from replicator.core.tag import TagKeys
from replicator.core.topology import Topologies, chain, compile_generation, hub, mesh
from replicator.ports import ClaimStore, Clock, LeaseStore, Quarantine, Sink, Source, Telemetry
from replicator.worker.link import Link, LinkSettings
from replicator.worker.service import Service
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

from .scenario import CLOCK_MARGIN_S, REQUEST_LIFETIME_S, SIGNATURE_S, Kind, Scenario
from .versions import Version

SOURCE = SourceName("hub")
LEASES = LeaseSettings(duration_s=6.0, renew_s=2.0, list_every=3)
FRUGAL = LeaseSettings(duration_s=6.0, renew_s=2.0, list_every=3, read_units_per_s=0.05)
"""As in a fleet that is too large to read all rows: one worker reads, the others hear of it seconds later."""
DRAIN_S = 5.0
GAUGES_S = 10.0
KEYS = TagKeys("k", {"k": b"a secret of the tests"})


class Parts(Struct, frozen=True):
    """What a worker is connected to."""

    source: Source
    sinks: dict[str, Sink]
    leases: LeaseStore
    claims: ClaimStore
    quarantine: Quarantine
    clock: Clock
    telemetry: Telemetry


def topologies(regions: tuple[str, ...], kinds: tuple[Kind, ...], starts_ms: int) -> Topologies:
    """Generation n has the kind number n - 1; the second starts at that time, and all know it before."""
    names = [Region(name) for name in regions]
    edges = {"mesh": lambda: mesh(names), "hub": lambda: hub(names, names[0]), "chain": lambda: chain(names)}
    starts = (0, starts_ms)
    made = zip(kinds, starts, strict=False)
    return Topologies(*[compile_generation(n, names, edges[kind](), at) for n, (kind, at) in enumerate(made, 1)])


def peers(topology: Topologies, region: str) -> list[str]:
    return sorted(topology.links_from(Region(region)))


def make_service(
    plan: Scenario,
    topology: Topologies,
    region: str,
    worker: str,
    parts: Parts,
    paused: frozenset[str],
    version: Version = "this",
) -> Service:
    rng = random.Random(f"worker {plan.seed} {worker}")
    identity = Identity(
        here=Region(region),
        worker=worker,
        regions=frozenset(map(Region, plan.regions)),
        routes=topology,
        keys=KEYS if plan.is_signed else None,
    )
    links = tuple(
        Link(
            source=SOURCE,
            peer=Region(peer),
            sink=sink,
            settings=_link_settings(plan, version, is_paused=peer in paused),
            clock=parts.clock,
            telemetry=parts.telemetry,
            rng=rng,
        )
        for peer, sink in parts.sinks.items()
    )
    log = LogSettings(
        window_bytes=plan.window_bytes,
        records_per_read=plan.records_per_read,
        reads_per_s=4.0,
        idle_read_s=1.0,
    )
    setup = SourceSetup(SOURCE, parts.source, make_format("json"), links, _start, log)
    leases = FRUGAL if plan.seed % 3 == 0 else LEASES
    settings = ServiceSettings(
        leases, RunnerSettings(DRAIN_S, 1.0), plan.on_loss, memory_bytes=plan.memory_bytes, gauges_s=GAUGES_S
    )
    stores = Stores(parts.leases, parts.claims, parts.quarantine)
    return Service(identity, [setup], stores, settings, clock=parts.clock, telemetry=parts.telemetry, rng=rng)


def _start(_: int) -> Position:
    return TrimHorizon()


def _link_settings(plan: Scenario, version: Version, *, is_paused: bool) -> LinkSettings:
    return LinkSettings(
        ordering=plan.ordering,
        in_flight_max=plan.in_flight_max,
        in_doubt=plan.in_doubt,
        aggregate=plan.aggregate,
        on_poison=plan.on_poison,
        request_lifetime_s=SIGNATURE_S if version == "previous" else REQUEST_LIFETIME_S,
        signature_window_s=SIGNATURE_S,
        clock_margin_s=CLOCK_MARGIN_S,
        believe_after_s=LEASES.duration_s,
        is_paused=is_paused,
        span_records_max=plan.span_records_max,
        open_spans_max=plan.open_spans_max,
        open_bytes_max=plan.open_bytes_max,
        read_back_records_max=plan.read_back_records_max,
        backoff_max_s=3.0,
        misconfigured_wait_s=1.0,
    )
