"""Disasters: what each does to the world, among what there is when it happens."""

import random
from collections.abc import Callable

from . import ports
from .build import peers
from .loop import Process
from .network import Ambush, Jam, Partition
from .scenario import SIGNATURE_S, Disaster, Happening
from .versions import Version
from .world import Region, Worker, World

SERVICES = ("stream", "leases", "claims", "quarantine")
SHARDS_MAX = 4
WORKERS_MAX = 4
STEPS = 8
"""So many callbacks it takes a worker at most from the answer of the claim store to the request on the wire."""


def happen(world: World, happening: Happening) -> None:
    world.note("--- %s for %.1f s", happening.kind, happening.length_s)
    WHAT[happening.kind](world, random.Random(happening.draw), happening.length_s)


def crash(world: World, rng: random.Random, length_s: float) -> None:
    if workers := world.alive():
        worker = rng.choice(workers)
        world.kill(worker)
        world.later(length_s, world.start_worker, worker.region.name)


def crash_all(world: World, rng: random.Random, length_s: float) -> None:
    region = rng.choice(list(world.regions))
    for worker in world.alive(region):
        world.kill(worker)
        world.later(length_s * rng.random(), world.start_worker, region)


def pause(world: World, rng: random.Random, length_s: float) -> None:
    """As a collector, a hypervisor or SIGSTOP does it."""
    if workers := world.running():
        world.pause(rng.choice(workers), length_s)


def crash_in_call(world: World, rng: random.Random, length_s: float) -> None:
    """While a call to one of the services is under way, or just answered."""
    _ambush(world, rng, lambda process: _crash(world, process, length_s))


def _crash(world: World, process: Process, length_s: float) -> None:
    worker = world.worker_of(process)
    if worker.is_alive:
        world.kill(worker)
        world.later(length_s, world.start_worker, worker.region.name)


def pause_in_call(world: World, rng: random.Random, length_s: float) -> None:
    def strike(process: Process) -> None:
        worker = world.worker_of(process)
        world.pause(worker, length_s)

    _ambush(world, rng, strike)


def crash_at_step(world: World, rng: random.Random, length_s: float) -> None:
    """A worker is gone at any await: so many callbacks from now, or from the answer to one of its calls."""
    steps = rng.randint(1, rng.choice((STEPS, 40, 1000)))
    count_down = _after_steps(steps, lambda process: _crash(world, process, length_s))
    if rng.random() < 0.7:
        service = rng.choice(("put", "put", "stream", "leases", "claims", "quarantine"))
        world.network.ambushes.append(Ambush(_region(world, rng).name, service, "answered", count_down))
    elif workers := world.running():
        count_down(rng.choice(workers).process)


def _after_steps(steps: int, strike: Callable[[Process], None]) -> Callable[[Process], None]:
    def count_down(process: Process) -> None:
        process.steps_left, process.at_step = steps, lambda: strike(process)

    return count_down


def pause_before_send(world: World, rng: random.Random, length_s: float) -> None:
    """A worker stands still when it has dated a request and looked at its right to send, and the request has not left.

    Or at any await on the way there, for as long as it takes others to own the shard and send.
    """
    region = _region(world, rng)
    length_s = rng.choice((length_s, 20.0 + 30.0 * rng.random()))
    is_step, steps = rng.random() < 0.5, rng.randint(1, STEPS)

    def strike(process: Process) -> None:
        worker = world.worker_of(process)
        if worker.is_alive:
            world.pause(worker, length_s)
            if not [other for other in world.running() if other.region is region]:
                world.start_worker(region.name)

    if is_step:
        world.network.ambushes.append(Ambush(region.name, "claims", "answered", _after_steps(steps, strike)))
    else:
        world.network.ambushes.append(Ambush(region.name, "put", "leaving", strike))


def _ambush(world: World, rng: random.Random, strike: Callable[[Process], None]) -> None:
    service = rng.choice(("put", "put", "put", "leases", "claims"))
    moment = rng.choice(("sent", "arrived", "answered"))
    world.network.ambushes.append(Ambush(_region(world, rng).name, service, moment, strike))


def late_put(world: World, rng: random.Random, length_s: float) -> None:
    """A request is held up on its way for about as long as a receiver takes it, and nobody waits for its answer."""
    _hold_up(world, rng, _region(world, rng))


def _hold_up(world: World, rng: random.Random, region: Region) -> None:
    def strike(process: Process) -> None:
        worker = world.worker_of(process)
        if not worker.is_alive:
            return
        if is_killed:
            world.kill(worker)
        else:
            world.pause(worker, 30.0)
        world.start_worker(worker.region.name)

    is_killed = rng.random() < 0.7
    delay_s = 4.0 + rng.choice((10.0, SIGNATURE_S)) * rng.random()
    world.network.jams.append(Jam(region.name, delay_s, strike))


def lonely_worker(world: World, rng: random.Random, length_s: float) -> None:
    """It reaches everything but the lease table."""
    if workers := world.running():
        worker = rng.choice(workers)
        if len(world.alive(worker.region.name)) == 1:
            world.start_worker(worker.region.name)
        _cut(
            world, Partition(worker.name, f"leases@{worker.region.name}", rng.choice(("requests", "answers"))), length_s
        )


def partition(world: World, rng: random.Random, length_s: float) -> None:
    scopes = [*world.regions, *[worker.name for worker in world.alive()]]
    scope = rng.choice(scopes)
    home = scope[0]
    service = rng.choice(("stream", "stream", "leases", "claims", "quarantine"))
    at = rng.choice(list(world.regions)) if service == "stream" else home
    _cut(world, Partition(scope, f"{service}@{at}", rng.choice(("requests", "answers", "both"))), length_s)


def split_network(world: World, rng: random.Random, length_s: float) -> None:
    """Between one region and all others, in one direction or both."""
    names = list(world.regions)
    lonely = rng.choice(names)
    direction = rng.choice(("requests", "answers", "both"))
    for other in names:
        if other != lonely:
            _cut(world, Partition(lonely, f"stream@{other}", direction), length_s)
            if rng.random() < 0.7:
                _cut(world, Partition(other, f"stream@{lonely}", direction), length_s)


def region_down(world: World, rng: random.Random, length_s: float) -> None:
    """Nobody reaches any service of the region, and its workers die; its streams and tables survive."""
    down = rng.choice(list(world.regions))
    for scope in world.regions:
        for service in SERVICES:
            _cut(world, Partition(scope, f"{service}@{down}", "both"), length_s)
    for worker in world.alive(down):
        world.kill(worker)
        world.later(length_s + rng.random() * 3, world.start_worker, down)
    world.regions[down].flush()
    world.checker.allowed.repeats = True


def _cut(world: World, wall: Partition, length_s: float) -> None:
    world.note("cut off: %s from %s, %s", wall.scope, wall.target, wall.direction)
    world.network.partitions.append(wall)
    if wall.target.startswith("claims"):
        world.checker.allowed.repeats = True
    world.later(length_s, _mend, world, wall)


def _mend(world: World, wall: Partition) -> None:
    if wall in world.network.partitions:
        world.note("mended: %s from %s", wall.scope, wall.target)
        world.network.partitions.remove(wall)


def _region(world: World, rng: random.Random) -> Region:
    return rng.choice(list(world.regions.values()))


def redis_flush(world: World, rng: random.Random, _: float) -> None:
    region = _region(world, rng)
    world.note("the claims of %s are lost", region.name)
    region.flush()
    world.checker.allowed.repeats = True


def redis_rollback(world: World, rng: random.Random, length_s: float) -> None:
    """A failover to a replica that had not heard of the last writes."""
    region = _region(world, rng)
    kept = ports.snapshot_claims(region.claims)

    def fail_over() -> None:
        world.note("the claims of %s are as they were %.1f s ago", region.name, length_s)
        ports.restore_claims(region.claims, kept)

    world.checker.allowed.repeats = True
    world.later(length_s, fail_over)


def redis_away(world: World, rng: random.Random, length_s: float) -> None:
    region = _region(world, rng)
    _cut(world, Partition(region.name, f"claims@{region.name}", "both"), length_s)


def leases_away(world: World, rng: random.Random, length_s: float) -> None:
    region = _region(world, rng)
    _cut(world, Partition(region.name, f"leases@{region.name}", rng.choice(("requests", "answers"))), length_s)


def _troubled(world: World, target: str, trouble: float, length_s: float) -> None:
    climate = world.network.climate(target)
    climate.trouble = trouble
    world.note("%.0f %% of calls to %s fail in some way", trouble * 100, target)
    if target.startswith("claims"):
        world.checker.allowed.repeats = True
    world.later(length_s, _calm, world, target)


def _calm(world: World, target: str) -> None:
    climate = world.network.climate(target)
    climate.trouble = climate.slow = 0.0


def ambiguous_replies(world: World, rng: random.Random, length_s: float) -> None:
    service = rng.choice(("stream", "stream", "stream", *SERVICES))
    _troubled(world, f"{service}@{_region(world, rng).name}", rng.choice((0.05, 0.3, 0.7)), length_s)


def repeated_requests(world: World, rng: random.Random, length_s: float) -> None:
    """Something on the way to a service sends requests again.

    An attaching to the claim store that comes again drops what was claimed meanwhile, and so its ids of the window.
    """
    service = rng.choice(("stream", "stream", *SERVICES))
    if service == "claims":
        world.checker.allowed.repeats = True
    climate = world.network.climate(f"{service}@{_region(world, rng).name}")
    climate.twice = rng.choice((0.1, 0.5, 0.9))
    world.note("%.0f %% of requests come twice", climate.twice * 100)
    world.later(length_s, lambda: setattr(climate, "twice", 0.0))


def redis_ambiguous(world: World, rng: random.Random, length_s: float) -> None:
    _troubled(world, f"claims@{_region(world, rng).name}", rng.choice((0.1, 0.3)), length_s)


def slow_network(world: World, rng: random.Random, length_s: float) -> None:
    climate = world.network.climate(f"{rng.choice(SERVICES)}@{_region(world, rng).name}")
    climate.slow = rng.choice((0.2, 0.9))
    world.later(length_s, lambda: setattr(climate, "slow", 0.0))


def throttle(world: World, rng: random.Random, length_s: float) -> None:
    hub = _region(world, rng).hub
    hub.throttled = rng.choice((0.2, 0.8, 1.0))
    world.later(length_s, lambda: setattr(hub, "throttled", 0.0))


def partial_failures(world: World, rng: random.Random, length_s: float) -> None:
    hub = _region(world, rng).hub
    hub.partly = rng.choice((0.1, 0.5, 0.95))
    world.later(length_s, lambda: setattr(hub, "partly", 0.0))


def hot_key(world: World, rng: random.Random, length_s: float) -> None:
    """The entries of one key fail, all others pass."""
    hub = _region(world, rng).hub
    hub.hot = rng.choice(world.plan.events).key
    world.note("nothing of key %s is taken", hub.hot)
    world.later(length_s, lambda: setattr(hub, "hot", ""))


def stuck_handover(world: World, rng: random.Random, length_s: float) -> None:
    """Workers hand over while a key of theirs is stuck, and later events of other keys are stored already.

    Their releases name the state of the claim store; in some histories that is no longer so when others take over.
    """
    hot_key(world, rng, 25.0)
    at_s = 5.0 + min(length_s, 10.0)
    for name in world.regions:
        world.later(at_s, _roll, world, name)
    if rng.random() < 0.4:
        lose = rng.choice((redis_flush, redis_rollback))
        world.later(at_s + 4.0 * rng.random(), lose, world, rng, 4.0 * rng.random())


def reshard(world: World, rng: random.Random, _: float) -> None:
    _reshard(world, rng, _region(world, rng))


def _reshard(world: World, rng: random.Random, region: Region) -> None:
    hub = region.hub
    is_open = [shard.id for shard in hub.list_shards() if not hub.is_closed(shard.id)]
    pairs = hub.neighbours()
    world.checker.allowed.repeats = True  # the window of event ids is a shard's
    if pairs and (rng.random() < 0.4 or len(is_open) >= SHARDS_MAX):
        left, right = rng.choice(pairs)
        world.note("%s merges %s and %s", region.name, left, right)
        hub.merge(left, right)
    elif len(is_open) < SHARDS_MAX:
        shard = rng.choice(is_open)
        world.note("%s splits %s", region.name, shard)
        hub.split(shard)


def unlisted_reshard(world: World, rng: random.Random, length_s: float) -> None:
    """A stream is resharded, and those who read it back are told of the new shards only when they are in doubt of them.

    Somebody is, because some of what is written there is not answered.
    """
    length_s = 20.0 + 30.0 * rng.random()
    region = _region(world, rng)
    hub = region.hub
    hub.old_listing = told = hub.list_shards()
    _reshard(world, rng, region)

    def tell() -> None:
        if hub.old_listing is told:
            hub.old_listing = None

    world.later(length_s, tell)
    _troubled(world, f"stream@{region.name}", 0.3, 6.0)


def recreate(world: World, rng: random.Random, _: float) -> None:
    """The stream is deleted and made anew under its name; what nobody had read of it is gone."""
    region = _region(world, rng)
    world.note("%s has a new stream", region.name)
    world.checker.allowed.repeats = True
    world.checker.recreated(region.name, str(region.hub.created_ms))
    region.hub.recreate(rng.choice((1, 2)))


def lease_rollback(world: World, rng: random.Random, length_s: float) -> None:
    """The lease table is restored to an older state, under running workers."""
    region = _region(world, rng)
    kept = ports.snapshot_leases(region.leases)

    def restore() -> None:
        world.note("the lease table of %s is as it was %.1f s ago", region.name, length_s)
        ports.restore_leases(region.leases, kept)

    world.checker.allowed.duplicates = world.checker.allowed.reordering = True
    world.later(length_s, restore)


def pause_link(world: World, rng: random.Random, length_s: float) -> None:
    """By configuration: the region's workers are replaced by others that know the link as paused."""
    region = _region(world, rng)
    peer = rng.choice(peers(world.topologies, region.name))
    world.note("the link from %s to %s is paused", region.name, peer)
    region.paused.add(peer)
    _roll(world, region.name)

    def go_on() -> None:
        world.note("the link from %s to %s goes on", region.name, peer)
        region.paused.discard(peer)
        _roll(world, region.name)

    world.later(length_s, go_on)


def scale_up(world: World, rng: random.Random, _: float) -> None:
    region = rng.choice(list(world.regions))
    if len(world.alive(region)) < WORKERS_MAX:
        world.start_worker(region)


def scale_down(world: World, rng: random.Random, length_s: float) -> None:
    """The last worker of a region is followed by another one."""
    if workers := world.running():
        worker = rng.choice(workers)
        world.drain(worker)
        if len(world.alive(worker.region.name)) == 1:
            world.later(length_s, world.start_worker, worker.region.name)


def rolling_restart(world: World, rng: random.Random, length_s: float) -> None:
    _roll(world, rng.choice(list(world.regions)), length_s)


def learn(world: World, region: str) -> None:
    """The region is configured with the topology to come; others have been, or will be."""
    world.note("--- %s learns of the next topology", region)
    _roll(world, region)


def _roll(world: World, region: str, length_s: float = 1.0) -> None:
    for number, worker in enumerate(w for w in world.alive(region) if w.stopping is None):
        world.later(number * length_s / 3, _replace, world, worker)


def _replace(world: World, worker: Worker) -> None:
    if not worker.is_alive or worker.stopping is not None:
        return
    world.start_worker(worker.region.name)
    if worker.process.is_stopped:
        world.kill(worker)
    else:
        world.drain(worker)


def other_version(world: World, rng: random.Random, length_s: float) -> None:
    """A region is upgraded, or rolled back, worker by worker; later it goes back to this version.

    Half of the times one of its workers leaves a request on its way, for whoever is of another version.
    """
    region = _region(world, rng)
    version: Version = rng.choice(("previous", "next"))
    world.checker.allowed.repeats |= version == "previous"  # whose window of event ids is another
    _deploy(world, region, version, length_s)
    if rng.random() < 0.5:
        world.later(length_s * rng.random(), _hold_up, world, rng, region)
    world.later(length_s * (0.5 + rng.random()), _deploy, world, region, "this", length_s)


def _deploy(world: World, region: Region, version: Version, length_s: float) -> None:
    world.note("%s gets workers of %s version", region.name, version)
    region.version = version
    _roll(world, region.name, length_s)


WHAT: dict[Disaster, Callable[[World, random.Random, float], None]] = {
    "crash": crash,
    "crash_all": crash_all,
    "crash_in_call": crash_in_call,
    "crash_at_step": crash_at_step,
    "pause": pause,
    "pause_in_call": pause_in_call,
    "pause_before_send": pause_before_send,
    "lonely_worker": lonely_worker,
    "partition": partition,
    "split_network": split_network,
    "region_down": region_down,
    "redis_flush": redis_flush,
    "redis_rollback": redis_rollback,
    "redis_away": redis_away,
    "redis_ambiguous": redis_ambiguous,
    "leases_away": leases_away,
    "throttle": throttle,
    "partial_failures": partial_failures,
    "hot_key": hot_key,
    "stuck_handover": stuck_handover,
    "late_put": late_put,
    "ambiguous_replies": ambiguous_replies,
    "repeated_requests": repeated_requests,
    "slow_network": slow_network,
    "reshard": reshard,
    "unlisted_reshard": unlisted_reshard,
    "recreate": recreate,
    "lease_rollback": lease_rollback,
    "pause_link": pause_link,
    "scale_up": scale_up,
    "scale_down": scale_down,
    "rolling_restart": rolling_restart,
    "other_version": other_version,
}
