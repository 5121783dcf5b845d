"""Faults the endpoint injects on demand: which rule strikes a request, drawn from a seeded generator."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from msgspec import Struct

Kind = Literal[
    "throttle",
    "internal_error",
    "unavailable",
    "internal_error_after_effect",
    "drop_before",
    "drop_after",
    "repeat",
    "delay",
    "fail_entries",
    "shuffle_entries",
    "expire_iterators",
    "clock_skew_ms",
]


_ONLY: dict[Kind, tuple[str, ...]] = {
    "repeat": ("PutRecords",),
    "fail_entries": ("PutRecords",),
    "shuffle_entries": ("PutRecords",),
    "expire_iterators": ("GetRecords",),
    "clock_skew_ms": (),
}
"""Kinds that make sense for some operations only; the skew is no matter of single requests."""


class Rule(Struct, forbid_unknown_fields=True, kw_only=True):
    """One fault.

    ``operation`` ``*`` is every operation. ``probability`` is drawn per request; with ``count`` the rule is
    spent after that many strikes, and a rule with neither strikes always. ``repeat``: the request takes effect a
    second time, as when a proxy sends it again, and the first answer is told. ``ms``: the delay, or the skew of
    the endpoint's clock (which holds from posting to clearing). ``fraction``: of the entries of one
    PutRecords; ``code``: their ErrorCode, or the throttle's.
    """

    kind: Kind
    operation: str = "*"
    stream: str | None = None
    probability: float = 1.0
    count: int | None = None
    ms: int = 0
    fraction: float = 1.0
    code: str | None = None


@dataclass(slots=True)
class Faults:
    """The rules in force, and how often each kind struck."""

    rules: list[Rule] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    random: Random = field(default_factory=lambda: Random(0))

    def add(self, rules: list[Rule], seed: int | None) -> None:
        if seed is not None:
            self.random.seed(seed)
        self.rules.extend(rules)

    def clear(self, stream: str | None = None) -> None:
        """Drop all rules, or only those of one stream."""
        self.rules = [rule for rule in self.rules if stream is not None and rule.stream != stream]

    @property
    def skew_ms(self) -> int:
        return sum(rule.ms for rule in self.rules if rule.kind == "clock_skew_ms")

    def strike(self, operation: str, stream: str | None) -> dict[Kind, Rule]:
        """The rules that hit this request, one of a kind; spent rules are dropped."""
        if not self.rules:
            return {}
        struck: dict[Kind, Rule] = {}
        for rule in self.rules:
            if rule.kind not in struck and self._hits(rule, operation, stream):
                struck[rule.kind] = rule
        for rule in struck.values():
            self.strikes[rule.kind] += 1
            rule.count = None if rule.count is None else rule.count - 1
        self.rules = [rule for rule in self.rules if rule.count != 0]
        return struck

    def failing_entries(self, rule: Rule, entries: int) -> dict[int, str]:
        """Which entries of a request fail, and with what code; one at least."""
        code = rule.code or "InternalFailure"
        wanted = max(1, round(entries * rule.fraction))
        return dict.fromkeys(self.random.sample(range(entries), min(wanted, entries)), code)

    def shuffled(self, entries: int) -> list[int]:
        """A random order of the entries: PutRecords promises none."""
        return self.random.sample(range(entries), entries)

    def _hits(self, rule: Rule, operation: str, stream: str | None) -> bool:
        if rule.operation not in ("*", operation) or operation not in _ONLY.get(rule.kind, (operation,)):
            return False
        if rule.stream is not None and rule.stream != stream:
            return False
        return rule.probability >= 1 or self.random.random() < rule.probability
