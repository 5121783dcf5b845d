"""``make bench``: the worker and what one would use in its place, measured in one run on one machine.

For comparing within a run, not across machines. ``--list`` names the cases.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from replicator.dev.environment_worker import leave_user_account
from tests.benchmarks.cases import CASES
from tests.benchmarks.contenders import has_node_peers
from tests.benchmarks.guard import guard
from tests.benchmarks.machine import head, machine
from tests.benchmarks.options import Options
from tests.benchmarks.plot import cpu_bars
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Section

WIDTH = 120


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    console = Console(width=WIDTH)
    if args.list:
        for name, case in CASES.items():
            console.print(f"{name:<12} {case.what}{' (quick)' if case.is_quick else ''}", highlight=False)
        return 0
    leave_user_account()
    names = args.case or [name for name, case in CASES.items() if case.is_quick or not args.quick]
    facts = machine()
    console.print(head(facts), highlight=False)
    if not has_node_peers():
        console.print("Without node and npm, the Node SDK loop and aws-lambda-stream are left out.")
    rounds = args.rounds or (1 if args.quick else 3)
    options = Options(rounds, args.quick, args.behind, args.flat)
    if args.check:
        return asyncio.run(_check(options, console))
    sections = asyncio.run(_run(names, options, console))
    _write(args, facts, sections)
    return 0


async def _run(names: Sequence[str], options: Options, console: Console) -> dict[str, Section]:
    sections = {}
    with tempfile.TemporaryDirectory(prefix="replicator-bench-") as workdir:
        async with Regions(Path(workdir)) as regions:
            for name in names:
                begun_s = time.monotonic()
                sections[name] = await CASES[name].run(regions, options)
                console.print()
                sections[name].print(console)
                console.print(f"{name}: {time.monotonic() - begun_s:.0f} s", style="dim")
    return sections


async def _check(options: Options, console: Console) -> int:
    with tempfile.TemporaryDirectory(prefix="replicator-bench-") as workdir:
        async with Regions(Path(workdir)) as regions:
            return await guard(regions, options, console)


def _write(args: argparse.Namespace, facts: dict[str, str], sections: dict[str, Section]) -> None:
    if args.json is not None:
        figures = {
            name: {"title": section.title, "columns": section.columns, "rows": section.rows, "note": section.note}
            | ({} if section.data is None else {"data": section.data})
            for name, section in sections.items()
        }
        args.json.write_text(json.dumps({"machine": facts, "sections": figures}, indent=1) + "\n")
    if args.plot is not None:
        bars = {case: values for section in sections.values() for case, values in section.bars.items()}
        args.plot.write_text(cpu_bars(bars, f"{facts['processor']}, {facts['date']}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--check", action="store_true", help="compare with the naive loop only; fail below the bounds")
    parser.add_argument("--case", action="append", choices=CASES, metavar="NAME", help="repeat it; all by default")
    parser.add_argument("--quick", action="store_true", help="some cases, one round, fewer events: under two minutes")
    parser.add_argument("--rounds", type=int, help="of each contender, beside one of warming up; 3, quick 1")
    parser.add_argument("--behind", type=int, default=200_000, help="events that a link falls behind (catch-up)")
    parser.add_argument("--flat", type=int, default=1_000_000, help="events through one worker (flat)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="write CPU an event as bars to this SVG file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
