"""``make simulate SEEDS=n [FROM=n]`` runs seeds on all cores, ``make simulate TRACE=n`` tells one history in full."""

import argparse
import multiprocessing
import os
import sys
import time

from .regressions import REGRESSIONS, load
from .report import explain
from .run import play, simulate
from .world import Outcome

CHUNK, CHUNKS_A_PROCESS = 5, 20
"""Seeds. What a history leaves behind makes those after it slower."""
EXPLAINED = 3
"""So many failing seeds are told at length."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--trace", help=f"a seed, or one of {', '.join(REGRESSIONS)}")
    args = parser.parse_args()
    if args.trace:
        kept = args.trace in REGRESSIONS
        return _tell(play(load(args.trace), has_logs=True) if kept else simulate(int(args.trace), has_logs=True))
    return _run(range(args.first, args.first + args.seeds), args.processes)


def _run(seeds: range, processes: int) -> int:
    begun_s = time.monotonic()
    failed: list[int] = []
    # Not concurrent.futures: with max_tasks_per_child its pool hangs in Python 3.11 when its processes end together.
    with multiprocessing.Pool(processes, maxtasksperchild=CHUNKS_A_PROCESS) as pool:
        for outcome in pool.imap(simulate, seeds, chunksize=CHUNK):
            if outcome.breaches:
                failed.append(outcome.seed)
                long = len(failed) <= EXPLAINED
                print(explain(outcome) if long else f"seed {outcome.seed}: {outcome.breaches[0]}", flush=True)
    print(f"{len(seeds)} seeds, {len(failed)} with breaches {failed[:20]}, {time.monotonic() - begun_s:.0f} s")
    return 1 if failed else 0


def _tell(outcome: Outcome) -> int:
    print("\n".join(outcome.trace))
    print("\n".join(f"{name}: {value}" for name, value in outcome.totals.items()))
    print(f"ended at {outcome.ended_s:.0f} s after {outcome.steps} steps")
    print("\n".join(outcome.breaches) or "no breach")
    return 1 if outcome.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
