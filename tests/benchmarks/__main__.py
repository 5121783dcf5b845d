"""``make bench``: CPU per event, in one run on one machine. For comparing within a run, not across machines."""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from replicator.dev.environment_worker import leave_user_account
from tests.benchmarks.rig import Case, Contender, Rig, has_node_peers
from tests.benchmarks.steps import ROUNDS, pure_steps

OURS = "worker, every guarantee"
CASES = {
    "240 B, 1 peer": Case(30_000, 240, 1, 2),
    "1 KB, 1 peer": Case(20_000, 1024, 1, 2),
    "1 KB, 3 peers": Case(20_000, 1024, 3, 2),
    "10 KB, 1 peer": Case(5_000, 10_240, 1, 2),
}


async def compare(case: Case, rounds: int) -> list[Contender]:
    with tempfile.TemporaryDirectory() as workdir:
        async with Rig(case, Path(workdir)) as rig:
            await rig.add_naive()
            if has_node_peers():
                await rig.add_node()
            await rig.add_worker(OURS)
            await rig.add_worker("worker, ordering: none", ordering="none")
            return list(await rig.rounds(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES, help="all by default")
    args = parser.parse_args()
    leave_user_account()
    console = Console(width=120)
    if not has_node_peers():
        console.print("without node and npm the Node loop is left out")
    results: dict[str, object] = {}
    if not args.case:
        steps = pure_steps()
        table = Table("step", "CPU, us an event", title=f"steps, best of {ROUNDS} rounds", title_justify="left")
        for name, value in steps.items():
            table.add_row(name, f"{value:.2f}")
        console.print(table)
        results["steps"] = {name: round(value, 3) for name, value in steps.items()}
    table = Table(
        "case", "contender", "CPU, us an event", "naive / this", "events/s", title=f"medians of {args.rounds} rounds"
    )
    for name in args.case or CASES:
        contenders = asyncio.run(compare(CASES[name], args.rounds))
        naive = contenders[0].median_us
        for contender in contenders:
            rate = max(contender.events_per_s)
            ratio = f"{naive / contender.median_us:.1f}x"
            table.add_row(name, contender.name, f"{contender.median_us:.1f}", ratio, f"{rate:,.0f}")
        results[name] = {c.name: [round(value, 2) for value in c.cpu_us] for c in contenders}
    console.print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
