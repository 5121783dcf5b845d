"""The smallest scenario that still goes wrong: events, disasters, workers and shards are left out as long as it does.

``python -m tests.simulation.shrink SEED MUTANT`` writes it to the regressions, under the name of the mutant that puts
the fixed bug back.
"""

import argparse
import sys
from collections.abc import Iterator

from msgspec.structs import replace

from .mutants import MUTANTS
from .regressions import keep
from .run import play
from .scenario import Scenario, scenario


def goes_wrong(plan: Scenario) -> bool:
    try:
        return bool(play(plan).breaches)
    except Exception:  # noqa: BLE001 - a broken worker may break the world, which is another way of going wrong
        return False


HISTORIES_MAX = 150


def shrink(plan: Scenario) -> Scenario:
    """Raises ValueError when the scenario is fine as it is."""
    if not goes_wrong(plan):
        raise ValueError(f"seed {plan.seed} goes wrong nowhere")
    left = HISTORIES_MAX
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(plan):
            left -= 1
            if left < 0:
                return plan
            if goes_wrong(candidate):
                plan, is_smaller = candidate, True
                break
    return plan


def _smaller(plan: Scenario) -> Iterator[Scenario]:
    yield from (replace(plan, happenings=part) for part in _without(plan.happenings))
    yield from (replace(plan, events=part) for part in _without(plan.events))
    if plan.is_troubled:
        yield replace(plan, is_troubled=False)
    for name in plan.regions:
        if plan.workers[name] > 1:
            yield replace(plan, workers=plan.workers | {name: 1})
        if plan.shards[name] > 1:
            yield replace(plan, shards=plan.shards | {name: 1})
        if plan.skews_ms[name]:
            yield replace(plan, skews_ms=plan.skews_ms | {name: 0})


def _without(items: tuple) -> Iterator[tuple]:  # type: ignore[type-arg] - of events or of happenings
    """Without one half, one quarter, ... of them, down to single ones of the last eight."""
    size = len(items) // 2 or 1
    while items:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        if size == 1 or len(items) // size > 16:
            return
        size //= 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.shrink")
    parser.add_argument("seed", type=int)
    parser.add_argument("mutant", choices=MUTANTS)
    args = parser.parse_args()
    MUTANTS[args.mutant]()
    plan = shrink(scenario(args.seed))
    keep(args.mutant, plan)
    print(f"{len(plan.events)} events, {len(plan.happenings)} disasters: {play(plan).breaches[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
