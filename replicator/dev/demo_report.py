"""The verdict for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from replicator.dev.checker import Verdict
from replicator.dev.checker_proof import Trial
from replicator.dev.demo_run import CATCH_UP_MAX_S, Facts, Script
from replicator.dev.environment_config import Layout

FIRST_MAX = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known at the end. ``quarantined``: events that workers put aside."""

    script: Script
    layout: Layout
    facts: Facts
    verdict: Verdict
    trials: Sequence[Trial]
    quarantined: int

    @property
    def is_clean(self) -> bool:
        """A clean verdict, in time, by a judge that has proved itself."""
        return self.verdict.clean and self.is_proved and not self.facts.missing

    @property
    def is_proved(self) -> bool:
        return all(trial.is_passed for trial in self.trials)


def as_json(outcome: Outcome) -> str:
    """One object on one line; times in seconds, None for what did not happen."""
    script, facts, verdict = outcome.script, outcome.facts, outcome.verdict
    return json.dumps(
        {
            "clean": outcome.is_clean,
            "written": verdict.written,
            "to_tables": facts.to_tables,
            "delivered": dict(verdict.delivered),
            **verdict.faults(),
            "catch_up_s": _rounded(facts.catch_up_s),
            "drain_s": _rounded(facts.drain_s),
            "events_per_s": round(verdict.written / facts.run_s, 1),
            "forwarded": facts.forwarded,
            "possible_duplicates": facts.possible_duplicates,
            "quarantined": outcome.quarantined,
            "replies_lost": facts.unknown,
            "missing": {region: _first(ids) for region, ids in facts.missing.items()},
            "examples": {fault: list(found) for fault, found in verdict.examples.items()},
            "self_test": outcome.is_proved,
            "outage": script.victim,
            "crash_workers": script.crash_workers,
            "flush_redis": script.flush_redis,
            "topology": outcome.layout.topology,
            "seconds": script.seconds,
        }
    )


def print_report(console: Console, outcome: Outcome) -> None:
    """The self-test in a line, what is missing if anything, and the verdict as a table."""
    passed = ", ".join(f"{trial.name}: {_trial_text(trial)}" for trial in outcome.trials)
    console.print(f"self-test of the judge ({'passed' if outcome.is_proved else 'FAILED'}): {passed}", soft_wrap=True)
    for region, ids in outcome.facts.missing.items():
        first = ", ".join(ids[:FIRST_MAX])
        console.print(f"{region} still lacks {len(ids):,} events {CATCH_UP_MAX_S:g} s on, first {first}")
    console.print(_table(outcome))
    for fault, found in outcome.verdict.examples.items():
        console.print(f"{fault}: {'; '.join(found)}", markup=False)
    console.print("[bold green]clean[/]" if outcome.is_clean else "[bold red]not clean[/]")


def _trial_text(trial: Trial) -> str:
    reported = ", ".join(f"{count} {fault}" for fault, count in trial.reported.items()) or "nothing"
    return reported if trial.is_passed else f"{reported} instead of {trial.expected}"


def _table(outcome: Outcome) -> Table:
    facts, verdict = outcome.facts, outcome.verdict
    table = Table(title="verdict", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("events written", f"{verdict.written:,}")
    table.add_row("of these to tables", f"{facts.to_tables:,}")
    for region, count in verdict.delivered.items():
        table.add_row(f"delivered to {region}", f"{count:,}")
    table.add_section()
    for fault, count in verdict.faults().items():
        colour = "red" if count else "green"
        table.add_row(fault.replace("_", " "), f"[{colour}]{count:,}[/]")
    table.add_section()
    table.add_row("possible duplicates, as counted by workers", f"{facts.possible_duplicates:,}")
    table.add_row("quarantined", f"{outcome.quarantined:,}")
    table.add_row("writes whose reply was lost", f"{facts.unknown:,}")
    if outcome.script.victim is not None:
        table.add_row(f"catch-up of {outcome.script.victim}", _seconds_text(facts.catch_up_s))
    table.add_row("last write to everything everywhere", _seconds_text(facts.drain_s))
    table.add_row("events a second, written and delivered", f"{verdict.written / facts.run_s:,.0f}")
    return table


def _seconds_text(seconds: float | None) -> str:
    return f"more than {CATCH_UP_MAX_S:g} s" if seconds is None else f"{seconds:.1f} s"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _first(ids: Sequence[str]) -> dict[str, object]:
    return {"count": len(ids), "first": list(ids[:FIRST_MAX])}
