"""CPU per event of every source into its region's hub, and of every sink from a hub, each by a worker of its own.

As in the matrix a worker stands still while its source is filled, and then goes until everything has arrived. What it
waits for costs it nothing, so slow emulators are not in its CPU, but what it does by the clock meanwhile is: renewals,
looking at empty queues. So each worker is also watched while it has nothing to do, and as much is taken off for the
time of each round.
"""

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median

from replicator.dev.environment import together
from tests.benchmarks.contenders import Contender, Spec, Stage, Work
from tests.benchmarks.options import Options
from tests.benchmarks.part_ends import SIZE_BYTES, Ends, Ground
from tests.benchmarks.part_list import PARTS, Part
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Cell, Section, spread

ARRIVAL_MAX_S = 60.0
POLL_S = 0.2
AFTER_S = 1.0
"""What is settled, deleted and checkpointed after the last arrival belongs to the work."""
REST_S, IDLE_S = 2.0, 5.0
WARM = 4
"""Of a round's events one in so many, once, before anything counts."""
LIMITS = {"idle_read_s": 1.0}
"""A worker that waits for an answer reads nothing meanwhile, so an idle one that is to tell what waiting costs must not
read much either."""


@dataclass(frozen=True, slots=True)
class Round:
    """Of a worker's process; ``took_s`` is on the clock."""

    events: int
    spent_s: float
    took_s: float

    def net_us(self, idle_s_a_s: float) -> float:
        """Microseconds of CPU an event, without what an idle worker spends in that time."""
        return (self.spent_s - idle_s_a_s * self.took_s) / self.events * 1e6

    def idle_us(self, idle_s_a_s: float) -> float:
        """What was taken off."""
        return idle_s_a_s * self.took_s / self.events * 1e6


@dataclass(slots=True)
class Runner:
    """A part with its worker, which is paused but for its rounds."""

    part: Part
    contender: Contender
    ends: Ends
    events: int
    idle_s_a_s: float = 0.0
    rounds: list[Round] = field(default_factory=list)

    @property
    def net_us(self) -> list[float]:
        return [each.net_us(self.idle_s_a_s) for each in self.rounds]


async def parts(regions: Regions, options: Options) -> Section:
    async with Stage(regions) as stage:
        runners = [await _prepared(stage, part, options.scale) for part in PARTS]
        await together(_launch(stage, runner.contender) for runner in runners)
        for runner in runners:
            await one_round(runner, runner.events // WARM)
        await _watch_idle(runners)
        for _ in range(options.rounds):
            for runner in runners:
                runner.rounds.append(await one_round(runner, runner.events))
    return _section(runners, options.rounds)


async def _prepared(stage: Stage, part: Part, scale: float) -> Runner:
    events = round(part.events * scale)
    spec = Spec(part.name, "worker", Work(events, SIZE_BYTES, shards=1), limits=LIMITS, streams=part.config)
    contender = await stage.prepare(spec)
    ends = await asyncio.to_thread(part.ends, Ground(stage.regions, contender.stream))
    return Runner(part, contender, ends, events)


async def _launch(stage: Stage, contender: Contender) -> None:
    await stage.launch(contender)
    contender.pause()


async def one_round(runner: Runner, events: int) -> Round:
    """Raises RuntimeError when not all events came, or some twice, or the worker ended."""
    contender, ends = runner.contender, runner.ends
    numbers = range(contender.written, contender.written + events)
    await asyncio.to_thread(ends.put, numbers)
    contender.written = numbers.stop
    begun_cpu_s, begun_s = contender.cpu_s(), time.monotonic()
    contender.resume()
    await _arrival(runner)
    await asyncio.sleep(AFTER_S)
    contender.pause()
    done = Round(events, contender.cpu_s() - begun_cpu_s, time.monotonic() - begun_s)
    check(runner.part.name, numbers.stop, await asyncio.to_thread(ends.arrived))
    return done


async def _arrival(runner: Runner) -> None:
    """Until the sink has everything and the source nothing any more."""
    ends, end_s = runner.ends, time.monotonic() + ARRIVAL_MAX_S
    while await asyncio.to_thread(ends.arrived) < runner.contender.written or await asyncio.to_thread(ends.left):
        runner.contender.check()
        if time.monotonic() > end_s:
            arrived, left = ends.arrived(), ends.left()
            raise RuntimeError(
                f"{runner.part.name}: after {ARRIVAL_MAX_S:g} s {arrived:,} of {runner.contender.written:,} events "
                f"have arrived, and {left:,} are left; see {runner.contender.children[0].log}"
            )
        await asyncio.sleep(POLL_S)


def check(name: str, wanted: int, arrived: int) -> None:
    """Raises RuntimeError: of a round with other events than were written nothing is to be said."""
    if arrived != wanted:
        raise RuntimeError(f"{name}: {wanted:,} events were written and {arrived:,} have arrived")


async def _watch_idle(runners: list[Runner]) -> None:
    """All together, since none of them does much."""
    for runner in runners:
        runner.contender.resume()
    await asyncio.sleep(REST_S)
    begun_s, before = time.monotonic(), [runner.contender.cpu_s() for runner in runners]
    await asyncio.sleep(IDLE_S)
    for runner, begun_cpu_s in zip(runners, before, strict=True):
        runner.idle_s_a_s = (runner.contender.cpu_s() - begun_cpu_s) / (time.monotonic() - begun_s)
        runner.contender.pause()


def _section(runners: list[Runner], count: int) -> Section:
    rows = [_row(runner) for runner in runners]
    columns = ("part", "in a request at most", "events", "CPU, us an event", "rounds", "idle, ms/s", "taken off, us")
    note = (
        "AWS's own bounds of a request dominate: ten messages or entries to a request, and one item, where Kinesis "
        "takes 500 records. Sources have the writing to their hub in it, sinks the reading of it. What an idle "
        "worker would have spent meanwhile is taken off."
    )
    data = {
        runner.part.name: {
            "cpu_us": runner.net_us,
            "took_s": [each.took_s for each in runner.rounds],
            "idle_ms_per_s": runner.idle_s_a_s * 1e3,
        }
        for runner in runners
    }
    title = f"CPU of the worker's process by source and sink, {SIZE_BYTES} B, 1 shard, medians of {count} rounds"
    return Section(title, columns, rows, note, data=data)


def _row(runner: Runner) -> tuple[Cell, ...]:
    off_us = median(each.idle_us(runner.idle_s_a_s) for each in runner.rounds)
    figures = runner.net_us
    return (
        runner.part.name,
        runner.part.batch,
        runner.events,
        median(figures),
        spread(figures),
        runner.idle_s_a_s * 1e3,
        off_us,
    )
