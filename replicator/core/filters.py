"""Which events may go over a link: by pattern and by age. Each that may not has a reason.

How it works: an event that matches a pattern of ``exclude`` stays, and where there is an ``include``, so does one that
matches none of it. Patterns see the event without our tag, so the same event is judged alike wherever it came from.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE
from replicator.core.patterns import compiled
from replicator.core.skim import RESERVED_KEY

EXCLUDED, NOT_INCLUDED, TOO_OLD = "excluded", "not_included", "too_old"


class FilterRules(Struct, frozen=True):
    """Patterns as decoded JSON. ``age_max_ms``: since the event arrived in this region's hub."""

    include: Sequence[object] = ()
    exclude: Sequence[object] = ()
    age_max_ms: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether every event may go."""
        return not self.include and not self.exclude and self.age_max_ms is None


class Filter:
    """Raises `core.patterns.PatternError` when it is made of what is no pattern."""

    def __init__(self, rules: FilterRules) -> None:
        self._include = [compiled(pattern) for pattern in rules.include]
        self._exclude = [compiled(pattern) for pattern in rules.exclude]
        self._age_max_ms = rules.age_max_ms

    def why_not(self, data: bytes, age_ms: int) -> str | None:
        """The reason to keep the event; None: it may go. What is no JSON object matches nothing."""
        if self._age_max_ms is not None and age_ms > self._age_max_ms:
            return TOO_OLD
        if not self._include and not self._exclude:
            return None
        event = _event(data)
        if any(matches(event) for matches in self._exclude):
            return EXCLUDED
        if self._include and not any(matches(event) for matches in self._include):
            return NOT_INCLUDED
        return None


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(event, dict):
        return {}
    for member in (RESERVED_KEY, CLOUDEVENTS_ATTRIBUTE):
        event.pop(member, None)
    return event
