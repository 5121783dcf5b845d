"""Event patterns as EventBridge has them: which events a rule speaks of.

How it works: a pattern is an object in the shape of the event; its leaves are lists of what a value may be. All members
must match, any entry of a list may. A member of the event that is a list matches when one of its elements does. What a
matcher asks stands in a table by its name; patterns are compiled once, so mistakes are told when they are read.

Source: EventBridge User Guide, "Comparison operators for use in event patterns".
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Test: TypeAlias = Callable[[Any], bool]
"""Of one value of an event; `ABSENT` where there is none."""
ABSENT: Any = object()
OR = "$or"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


class PatternError(ValueError):
    """What is no pattern, and where in it."""


def compiled(pattern: object) -> Test:
    """Whether an event (as decoded JSON) matches. Raises PatternError."""
    return _object(pattern, "the pattern")


def _object(pattern: object, where: str) -> Test:
    if not isinstance(pattern, dict) or not pattern:
        raise PatternError(f"{where} must be an object with at least one member")
    members = {name: _member(inner, f"{where}.{name}") for name, inner in pattern.items() if name != OR}
    alternatives = _alternatives(pattern[OR], where) if OR in pattern else None

    def matches(value: Any) -> bool:
        if isinstance(value, list):
            return any(matches(element) for element in value)
        if not isinstance(value, dict):
            value = {}
        is_met = all(test(value.get(name, ABSENT)) for name, test in members.items())
        return is_met and (alternatives is None or any(test(value) for test in alternatives))

    return matches


def _alternatives(patterns: object, where: str) -> list[Test]:
    if not isinstance(patterns, list) or not patterns:
        raise PatternError(f"{where}.{OR} must be a list of patterns")
    return [_object(inner, f"{where}.{OR}[{place}]") for place, inner in enumerate(patterns)]


def _listed(inner: object) -> str:
    """A value as it should have been written."""
    return json.dumps([inner if isinstance(inner, str | int | float) else "a value"])


def _member(inner: object, where: str) -> Test:
    if isinstance(inner, dict):
        return _object(inner, where)
    if not isinstance(inner, list) or not inner:
        raise PatternError(f"{where} must be a list of values, such as {_listed(inner)}, or an object")
    tests = [_entry(entry, f"{where}[{place}]") for place, entry in enumerate(inner)]

    def matches(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return any(test(one) for one in values for test in tests)

    return matches


def _entry(entry: object, where: str) -> Test:
    if not isinstance(entry, dict):
        return _equals(entry, where)
    if len(entry) != 1:
        raise PatternError(f"{where} must have one member, one of {', '.join(sorted(MATCHERS))}")
    [(name, asked)] = entry.items()
    if name not in MATCHERS:
        raise PatternError(f"{where}: there is no {name!r}; there is: {', '.join(sorted(MATCHERS))}")
    return MATCHERS[name](asked, where)


def _equals(wanted: object, where: str) -> Test:
    if isinstance(wanted, list):
        raise PatternError(f"{where} is a list within a list")
    is_truth = isinstance(wanted, bool)
    return lambda value: value is not ABSENT and isinstance(value, bool) == is_truth and value == wanted


def _text(asked: object, where: str) -> str:
    if not isinstance(asked, str) or not asked:
        raise PatternError(f"{where} asks for text")
    return asked


def _prefix(asked: object, where: str) -> Test:
    text = _text(asked, where)
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(asked: object, where: str) -> Test:
    text = _text(asked, where)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _ignore_case(asked: object, where: str) -> Test:
    text = _text(asked, where).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == text


def _wildcard(asked: object, where: str) -> Test:
    parts = [re.escape(part) for part in _text(asked, where).split("*")]
    found = re.compile(".*".join(parts), re.DOTALL)
    return lambda value: isinstance(value, str) and found.fullmatch(value) is not None


def _exists(asked: object, where: str) -> Test:
    if not isinstance(asked, bool):
        raise PatternError(f"{where}: exists asks for true or false")
    return lambda value: (value is not ABSENT) == asked


def _anything_but(asked: object, where: str) -> Test:
    entries: Sequence[object] = asked if isinstance(asked, list) else [asked]
    tests = [_entry(entry, where) for entry in entries]
    return lambda value: value is not ABSENT and not any(test(value) for test in tests)


def _numeric(asked: object, where: str) -> Test:
    if not isinstance(asked, list) or not asked or len(asked) % 2:
        raise PatternError(f'{where}: numeric asks for pairs, such as [">", 0, "<=", 5]')
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    for sign, bound in pairs:
        if sign not in COMPARISONS or isinstance(bound, bool) or not isinstance(bound, int | float):
            raise PatternError(f"{where}: {sign!r}, {bound!r} is no comparison; there is: {', '.join(COMPARISONS)}")
    return lambda value: (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and all(COMPARISONS[sign](value, bound) for sign, bound in pairs)
    )


MATCHERS: Mapping[str, Callable[[object, str], Test]] = {
    "anything-but": _anything_but,
    "equals-ignore-case": _ignore_case,
    "exists": _exists,
    "numeric": _numeric,
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
}
