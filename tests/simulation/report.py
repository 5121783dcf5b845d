"""A history that went wrong, told so that a person can follow it."""

import re

from .world import Outcome

LINES_BEFORE = 40
WORLDLY = re.compile(
    r"^ *[\d.]+ (---|[a-e]\d+ (starts|ended|is |stands|goes)|the |cut off|mended|[a-e] (splits|merges|has))"
)


def explain(outcome: Outcome, lines_before: int = LINES_BEFORE) -> str:
    """The breaches, what befell the world, and what happened just before the first breach."""
    at_s = min((float(line.split()[0]) for line in outcome.breaches), default=outcome.ended_s)
    before = [line for line in outcome.trace if float(line.split()[0]) <= at_s]
    worldly = [line for line in before[:-lines_before] if WORLDLY.match(line)]
    return "\n".join(
        (
            f"seed {outcome.seed}: {len(outcome.breaches)} breaches",
            *outcome.breaches[:20],
            "the world until then:",
            *worldly,
            "just before:",
            *(line[:300] for line in before[-lines_before:]),
            f"all of it: make simulate TRACE={outcome.seed}",
        )
    )
