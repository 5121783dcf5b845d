"""From a seed to its outcome."""

import asyncio
import gc
import logging
import random
import traceback
from collections.abc import MutableMapping
from typing import Any, NoReturn

import structlog

from .disasters import happen, learn
from .loop import OWNER, Stuck, VirtualLoop
from .scenario import LOAD_S, Event, Scenario, scenario
from .world import DRAINED_S, SETTLED_S, Outcome, World

# What was imported by now stays: to look at it again after every history would take a third of the time.
gc.collect()
gc.freeze()

SAMPLE_S = 2.0
WATCH_S = 0.37
PACKING_S = 0.5
LINGER_S = 8.0
"""How long the world goes on when everything is settled, so that what comes late is seen."""


def simulate(seed: int, *, has_logs: bool = False) -> Outcome:
    return play(scenario(seed), has_logs=has_logs)


def play(plan: Scenario, *, has_logs: bool = False) -> Outcome:
    """The whole history; nothing but the plan decides what happens in it. ``has_logs``: traced, with workers' logs."""
    loop = VirtualLoop()
    was_collecting = gc.isenabled()
    gc.collect()  # the world before was one knot of references
    gc.disable()
    try:
        world = World(plan, loop)
        _configure_logs(world, has_logs)
        try:
            loop.run_until_complete(loop.create_task(_story(world), context=world.context))
        except Stuck as exc:
            world.breach(str(exc))
            loop.run_until_complete(loop.create_task(_bury(world), context=world.context))
        return world.outcome(has_trace=has_logs)
    finally:
        loop.close()
        if was_collecting:
            gc.enable()
        structlog.reset_defaults()


def _configure_logs(world: World, has_logs: bool) -> None:
    def to_trace(_: object, __: str, event: MutableMapping[str, Any]) -> NoReturn:
        owner = OWNER.get()
        name = event.pop("event")
        if event.pop("exc_info", None):
            event["error"] = traceback.format_exc(limit=-4)
        world.note("%s: %s %s", owner.name if owner else "world", name, event)
        raise structlog.DropEvent

    level = logging.INFO if has_logs else logging.CRITICAL
    structlog.configure(processors=[to_trace], wrapper_class=structlog.make_filtering_bound_logger(level))


async def _story(world: World) -> None:
    _begin(world)
    await asyncio.sleep(LOAD_S)
    _calm_down(world)
    await _until_settled(world)
    if not world.checker.breaches:
        await asyncio.sleep(LINGER_S)
        await _drain_all(world)
    world.checker.judge_held_keys(world.loop.now_s)
    _judge_totals(world)
    await _bury(world)


def _begin(world: World) -> None:
    plan = world.plan
    for region in plan.regions:
        for _ in range(plan.workers[region]):
            world.start_worker(region)
    rng = random.Random(f"trouble {plan.seed}")
    for region in plan.regions if plan.is_troubled else ():
        for service in ("stream", "leases", "claims", "quarantine"):
            world.network.climate(f"{service}@{region}").trouble = rng.choice((0.0, 0.0, 0.01, 0.05))
            world.checker.allowed.repeats = True
    world.loop.watch(WATCH_S, world.judge_memory)
    for events in _records(plan):
        world.later(events[-1].at_s, world.produce, *events)
    for name, at_s in plan.learns_at_s.items():
        world.later(at_s, learn, world, name)
    for happening in plan.happenings:
        world.later(happening.at_s, happen, world, happening)


def _records(plan: Scenario) -> list[list[Event]]:
    """What producers write together: events of one key, not far from each other."""
    records: list[list[Event]] = []
    last: dict[tuple[str, str], list[Event]] = {}
    for event in plan.events:
        lane = (event.region, event.key)
        together = last.get(lane)
        if together and len(together) < plan.packed_max and event.at_s - together[0].at_s < PACKING_S:
            together.append(event)
        else:
            records.append([event])
            last[lane] = records[-1]
    return records


def _calm_down(world: World) -> None:
    """No new trouble; stopped workers go on, every region has a worker, what was under way goes on."""
    world.note("--- calm")
    world.network.calm()
    for region in world.regions.values():
        region.hub.throttled = region.hub.partly = 0.0
        region.hub.hot = ""
        region.hub.old_listing = None
    for worker in world.alive():
        world.loop.resume_process(worker.process)
    for name in world.regions:
        if not any(worker.stopping is None for worker in world.alive(name)):
            world.start_worker(name)


async def _until_settled(world: World) -> None:
    while next(world.unsettled(), None) is not None:
        if world.loop.now_s > SETTLED_S:
            for what in list(world.unsettled())[:20]:
                world.breach(f"never came: {what}")
            return
        if world.checker.breaches:
            return
        await asyncio.sleep(SAMPLE_S)


async def _drain_all(world: World) -> None:
    """A graceful stop of everybody ends in time."""
    workers = world.alive()
    for worker in workers:
        if worker.stopping is None:
            world.drain(worker)
    await asyncio.sleep(0)
    await asyncio.wait([worker.task for worker in workers], timeout=DRAINED_S + 1.0)


def _judge_totals(world: World) -> None:
    """A shard that failed with an error of our own, and errors that nobody took."""
    if failed := world.tally.totals.get("lease_moves_total/failed"):
        world.breach(f"{failed} shards failed with an unexpected error")
    for error in world.loop.errors:
        world.breach(error)


async def _bury(world: World) -> None:
    """Everything was judged: let every task end, those of the dead as well."""
    world.is_over = world.network.is_over = True
    me = asyncio.current_task()
    for _ in range(1000):
        for worker in world.workers:  # each time: a disaster that is still to come may stop one again
            world.loop.bury_process(worker.process)
        left = [task for task in world.loop.tasks if not task.done() and task is not me]
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.sleep(0.001)
    raise AssertionError(f"{len(left)} tasks do not end: {left[:3]}")
