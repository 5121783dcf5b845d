"""Event patterns: what they match, as EventBridge does, and how mistakes in them are told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.events.models import EventPattern

from replicator.core.filters import EXCLUDED, NOT_INCLUDED, TOO_OLD, Filter, FilterRules
from replicator.core.patterns import PatternError, compiled

EVENT: dict[str, Any] = {
    "type": "order-paid",
    "source": "shop",
    "count": 5,
    "flag": True,
    "none": None,
    "tags": ["eu", "pii"],
    "detail": {"total": 12.5, "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}], "empty": {}},
}


@pytest.mark.parametrize(
    "pattern",
    [
        {"type": ["order-paid"]},
        {"type": ["other", "order-paid"], "source": ["shop"]},
        {"count": [5]},
        {"count": [5.0]},
        {"flag": [True]},
        {"none": [None]},
        {"tags": ["pii"]},
        {"detail": {"total": [{"numeric": [">", 12, "<=", 12.5]}]}},
        {"detail": {"lines": {"sku": ["b"]}}},
        {"type": [{"prefix": "order-"}]},
        {"type": [{"suffix": "-paid"}]},
        {"type": [{"wildcard": "o*r-*d"}]},
        {"type": [{"equals-ignore-case": "ORDER-PAID"}]},
        {"type": [{"anything-but": ["order-placed"]}]},
        {"type": [{"anything-but": {"prefix": "payment"}}]},
        {"absent": [{"exists": False}], "type": [{"exists": True}]},
        {"detail": {"absent": {"deeper": [{"exists": False}]}}},
        {"source": ["shop"], "$or": [{"type": ["no"]}, {"count": [{"numeric": ["=", 5]}]}]},
    ],
)
def test_it_matches(pattern: dict[str, Any]) -> None:
    assert compiled(pattern)(EVENT)


@pytest.mark.parametrize(
    "pattern",
    [
        {"type": ["order-placed"]},
        {"type": ["order-paid"], "source": ["else"]},
        {"count": [True]},
        {"count": ["5"]},
        {"flag": [1]},
        {"absent": [None]},
        {"none": [False]},
        {"tags": ["us"]},
        {"detail": {"total": [{"numeric": ["<", 12]}]}},
        {"detail": {"lines": {"sku": ["a"], "n": [2]}}},
        {"count": [{"prefix": "5"}]},
        {"flag": [{"numeric": ["=", 1]}]},
        {"absent": [{"anything-but": ["x"]}]},
        {"type": [{"anything-but": "order-paid"}]},
        {"type": [{"exists": False}]},
        {"type": {"deeper": ["x"]}},
        {"source": ["shop"], "$or": [{"type": ["no"]}, {"count": [6]}]},
    ],
)
def test_it_does_not_match(pattern: dict[str, Any]) -> None:
    assert not compiled(pattern)(EVENT)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({}, "the pattern must be an object with at least one member"),
        ({"type": "paid"}, 'the pattern.type must be a list of values, such as ["paid"], or'),
        ({"detail": {"total": []}}, "the pattern.detail.total must be a list"),
        ({"type": [{"prefx": "a"}]}, "the pattern.type[0]: there is no 'prefx'; there is: anything-but"),
        ({"type": [{"prefix": "a", "suffix": "b"}]}, "must have one member"),
        ({"type": [{"prefix": 5}]}, "asks for text"),
        ({"n": [{"numeric": [">"]}]}, "asks for pairs"),
        ({"n": [{"numeric": ["~", 5]}]}, "'~', 5 is no comparison"),
        ({"n": [{"exists": "yes"}]}, "asks for true or false"),
        ({"$or": {}}, "must be a list of patterns"),
        ({"n": [["a"]]}, "is a list within a list"),
    ],
)
def test_a_mistake_is_told_with_its_place(pattern: dict[str, Any], message: str) -> None:
    with pytest.raises(PatternError) as told:
        compiled(pattern)
    assert message in str(told.value)


NAMES = st.sampled_from(["a", "b"])
SCALARS = st.sampled_from(["x", "y", "xy", 1, 2])
VALUES = SCALARS | st.lists(SCALARS, min_size=1, max_size=2)
EVENTS = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, min_size=1, max_size=2), max_size=2)
ENTRIES = SCALARS | st.sampled_from([{"prefix": "x"}, {"exists": True}, {"exists": False}, {"numeric": [">", 1]}])
LEAVES = st.lists(ENTRIES, min_size=1, max_size=2)
PATTERNS = st.dictionaries(NAMES, LEAVES | st.dictionaries(NAMES, LEAVES, min_size=1), min_size=1, max_size=2)


def is_comparable(pattern: Any, event: Any) -> bool:
    """moto compares lists with matchers as a whole, and takes an object for a leaf that is not there."""
    return all(
        _is_comparable(inner, event.get(name) if isinstance(event, dict) else None) for name, inner in pattern.items()
    )


def _is_comparable(inner: Any, value: Any) -> bool:
    if isinstance(inner, dict):
        return not isinstance(value, list) and is_comparable(inner, value)
    has_matchers = any(isinstance(entry, dict) for entry in inner)
    return not isinstance(value, dict) and not (isinstance(value, list) and has_matchers)


@given(PATTERNS, EVENTS)
def test_it_matches_what_moto_matches(pattern: dict[str, Any], event: dict[str, Any]) -> None:
    if is_comparable(pattern, event):
        assert compiled(pattern)(event) == EventPattern(None, pattern).matches_event(event)  # type: ignore[arg-type]


def why_not(rules: FilterRules, data: bytes, age_ms: int = 0) -> str | None:
    return Filter(rules).why_not(data, age_ms)


def test_exclusion_goes_before_inclusion_and_age_before_both() -> None:
    paid, secret = {"type": ["paid"]}, {"pii": [{"exists": True}]}
    rules = FilterRules([paid], [secret], 1000)
    assert why_not(rules, b'{"type":"paid"}') is None
    assert why_not(rules, b'{"type":"paid","pii":1}') == EXCLUDED
    assert why_not(rules, b'{"type":"placed"}') == NOT_INCLUDED
    assert why_not(rules, b'{"type":"paid"}', 1001) == TOO_OLD
    assert why_not(FilterRules(exclude=[secret]), b'{"type":"placed"}') is None


def test_our_tag_is_no_part_of_the_event() -> None:
    rules = FilterRules(exclude=[{"_replicator": [{"exists": True}]}])
    assert why_not(rules, b'{"_replicator":{"v":1},"type":"paid"}') is None
    assert FilterRules().is_idle
    assert not rules.is_idle


@given(st.binary(max_size=60))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert why_not(FilterRules(include=[{"a": ["b"]}]), data) in {None, NOT_INCLUDED}
