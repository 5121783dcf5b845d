"""The demo: three regions replicate a live stream, one is lost and comes back, and the hubs are audited.

Phases: start, run (with the disasters at fixed parts of the time), catch up, audit. The audit's judge shares
no code with the worker and has to prove itself on the data of this very run first.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from replicator.dev.checker import Hubs, judge
from replicator.dev.checker_proof import TooLittle, prove
from replicator.dev.checker_reading import read_hub
from replicator.dev.demo_report import Outcome, as_json, print_report
from replicator.dev.demo_run import Run, Script
from replicator.dev.demo_view import View
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.environment_worker import leave_user_account
from replicator.errors import ConfigError, ReplicatorError

TABLE_SHARE = 50
"""For so many events that producers write to the hubs, one is written to a table, in each region that has one."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """The command's flags. ``seconds`` is the time of writing; start, catch-up and audit come on top."""

    seconds: float = 40.0
    events: int = 20_000
    topology: Literal["mesh", "hub", "chain"] = "mesh"
    output: Literal["text", "json"] = "text"
    has_outage: bool = True
    crash_workers: bool = False
    flush_redis: bool = False
    aggregate: bool = False
    workdir: Path | None = None
    keep: bool = False


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 for a clean verdict, 1 for any other end, 128 + the number of a signal that ended it."""
    options = Options(
        seconds=args.seconds,
        events=args.events,
        topology=args.topology,
        output=args.output,
        has_outage=not args.no_outage,
        crash_workers=args.crash_workers,
        flush_redis=args.flush_redis,
        aggregate=args.aggregate,
        workdir=None if args.workdir is None else Path(args.workdir),
        keep=args.keep,
    )
    leave_user_account()
    return asyncio.run(_until_signal(options))


async def _until_signal(options: Options) -> int:
    """Run the demo as a task that a signal cancels, so that it leaves nothing behind."""
    task = asyncio.create_task(demo(options))
    received: list[int] = []

    def stop(number: int) -> None:
        # One signal is enough: another one must not interrupt the cleaning up.
        if not received:
            received.append(number)
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]


async def demo(options: Options) -> int:
    """The whole demo; returns 0 if the verdict is clean, else 1."""
    console = Console(file=sys.stderr if options.output == "json" else sys.stdout)
    view = View(console)
    try:
        with _workdir(options) as workdir:
            outcome = await _perform(options, view, workdir)
            if options.keep:
                view.say(f"logs and configuration are kept in {workdir}")
    except (ReplicatorError, TooLittle) as exc:
        console.print(f"the demo failed: {exc}", style="red", markup=False, highlight=False)
        return 1
    print_report(console, outcome)
    if options.output == "json":
        sys.stdout.write(as_json(outcome) + "\n")
        sys.stdout.flush()
    return 0 if outcome.is_clean else 1


@contextmanager
def _workdir(options: Options) -> Iterator[Path]:
    """A new directory, in the one that was asked for; it goes again, unless it is to be kept."""
    parent = options.workdir
    is_new = parent is not None and not parent.exists()
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="replicator-demo-", dir=parent))
    except OSError as exc:
        raise ConfigError(f"--workdir {parent}: {exc}") from exc
    try:
        yield directory
    finally:
        if not options.keep:
            shutil.rmtree(directory)
            if is_new and parent is not None:
                parent.rmdir()


async def _perform(options: Options, view: View, workdir: Path) -> Outcome:
    layout = Layout(topology=options.topology, aggregate="kpl" if options.aggregate else "none", table="outbox")
    seed = random.randrange(2**32)
    view.say(
        f"starting {len(layout.regions)} regions ({layout.topology}), each with an AWS endpoint, a Valkey "
        f"and {layout.workers} workers: {', '.join(layout.regions)}; seed {seed}"
    )
    async with Environment(layout, workdir) as environment:
        await environment.start_workers()
        await environment.wait_ready()
        script = Script(
            seconds=options.seconds,
            events=options.events,
            table_events=options.events // TABLE_SHARE,
            victim=layout.regions[-1] if options.has_outage else None,
            crash_workers=options.crash_workers,
            flush_redis=options.flush_redis,
        )
        async with Run(environment, script, view, random.Random(seed)) as run:
            facts = await run.perform()
        view.say("reading every hub from the beginning")
        hubs = await asyncio.to_thread(_read_hubs, environment)
        verdict, trials = await asyncio.to_thread(
            lambda: (judge(run.written, hubs), prove(run.written, hubs, random.Random(seed)))
        )
        return Outcome(script, layout, facts, verdict, trials, environment.quarantined())


def _read_hubs(environment: Environment) -> Hubs:
    stream = environment.layout.stream
    return {region: read_hub(parts.ready.kinesis, region, stream) for region, parts in environment.regions.items()}
