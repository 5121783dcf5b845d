"""Runs seeds: ``python -m tests.simulation --seeds N [--from N] [--processes N]``, or one with its trace: ``--trace N``."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from .run import simulate
from .world import Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--trace", type=int)
    args = parser.parse_args()
    if args.trace is not None:
        return _tell(simulate(args.trace, has_logs=True))
    begun_s = time.monotonic()
    failed = 0
    with ProcessPoolExecutor(args.processes) as pool:
        for outcome in pool.map(simulate, range(args.first, args.first + args.seeds), chunksize=5):
            if outcome.breaches:
                failed += 1
                print(f"seed {outcome.seed}: " + "\n    ".join(outcome.breaches[:4]), flush=True)
    print(f"{args.seeds} seeds, {failed} with breaches, {time.monotonic() - begun_s:.0f} s")
    return 1 if failed else 0


def _tell(outcome: Outcome) -> int:
    print("\n".join(outcome.trace))
    print("\n".join(f"{name}: {value}" for name, value in outcome.totals.items()))
    print(f"ended at {outcome.ended_s:.0f} s after {outcome.steps} steps")
    print("\n".join(outcome.breaches) or "no breach")
    return 1 if outcome.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
