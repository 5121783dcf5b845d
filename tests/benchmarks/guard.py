"""``make bench-check``: has the worker become dearer? Ratios of CPU against the naive loop in the same run, with room.

The bounds are four fifths of what was measured when they were set, so that a machine's mood does not break them and
the loss of a batch loop or a shared body does.
"""

from collections.abc import Mapping

from rich.console import Console

from tests.benchmarks.contenders import Work
from tests.benchmarks.cpu import OURS, Comparison, compare, naive, worker
from tests.benchmarks.options import Options
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import NAIVE

ONE, THREE = "1 KB, 1 peer", "1 KB, 3 peers"
AT_LEAST = {ONE: 6.2, THREE: 8.0}


async def guard(regions: Regions, options: Options, console: Console) -> int:
    """0 when every bound holds, else 1; says which do."""
    both = (naive, worker)
    groups = (Comparison(ONE, Work(20_000), both), Comparison(THREE, Work(20_000, peers=3), both))
    section = await compare(regions, groups, count=options.rounds, scale=options.scale)
    section.print(console)
    verdicts = judged(section.bars)
    for line, _ in verdicts:
        console.print(line, highlight=False)
    return 0 if all(is_kept for _, is_kept in verdicts) else 1


def judged(cpu_us: Mapping[str, Mapping[str, float]]) -> list[tuple[str, bool]]:
    """A line for every bound, and whether it is kept."""
    found = []
    for case, bound in AT_LEAST.items():
        times = cpu_us[case][NAIVE] / cpu_us[case][OURS]
        word = "kept" if times >= bound else "BROKEN"
        found.append((f"{case}: {times:.1f}x less CPU than the naive loop, at least {bound}x: {word}", times >= bound))
    return found
