"""Waiting: bounded, jittered, and shared fairly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.backoff import delay_s
from replicator.core.budget import ReadBudget


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_positive_and_never_above_the_maximum(attempt: int, draw: float) -> None:
    assert 0 < delay_s(attempt, draw, base_s=0.1, max_s=20.0) <= 20.0


Reads = dict[str, list[float]]


def reads_of(readers_behind: int, *, live_rests_s: float = 0.0, seconds: float = 60.0) -> Reads:
    """When everybody reads who wants to whenever it may, a call taking 20 ms; those behind book one after the other."""
    budget = ReadBudget(4.0, 0.0)
    made: Reads = {"live": [], "behind": []}
    live_s, behind_s = 0.0, [0.0] * readers_behind
    may_book_s = 0.0
    while min((live_s, *behind_s)) < seconds:
        first = min(behind_s, default=seconds)
        turn_s = max(first, may_book_s)
        turn_s += budget.turn_s(turn_s)
        if live_s <= turn_s:
            at_s = live_s + budget.reserve_live(live_s)
            made["live"].append(at_s)
            live_s = at_s + 0.02 + live_rests_s
        else:
            at_s = may_book_s = turn_s + budget.reserve_behind(turn_s)
            made["behind"].append(at_s)
            behind_s[behind_s.index(first)] = at_s + 0.02
    return made


def longest_wait_s(times: list[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times))


@given(st.integers(0, 9), st.floats(0, 1))
def test_no_second_holds_more_calls_than_the_budget(readers_behind: int, live_rests_s: float) -> None:
    reads = reads_of(readers_behind, live_rests_s=live_rests_s, seconds=10)
    made = sorted(reads["live"] + reads["behind"])
    assert all(later - earlier >= 0.25 - 1e-6 for earlier, later in pairwise(made))


@pytest.mark.parametrize("readers_behind", range(1, 10))
def test_the_live_reader_gets_every_other_call_however_many_catch_up(readers_behind: int) -> None:
    made = reads_of(readers_behind)
    assert longest_wait_s(made["live"]) <= 0.5 + 1e-6
    assert len(made["live"]) >= len(made["behind"]) - 1
    assert len(made["behind"]) >= 60 * 4 / 2 - 5


def test_those_who_catch_up_have_the_whole_budget_when_the_live_reader_does_not_read() -> None:
    made = reads_of(3, live_rests_s=1e9)
    assert len(made["behind"]) >= 60 * 4 - 10


@given(st.floats(0.1, 1000.0), st.floats(0.0, 1.0))
def test_a_phase_moves_all_calls_behind_the_first_and_no_two_closer(per_s: float, phase: float) -> None:
    budget = ReadBudget(per_s, 0.0, phase)
    at_s = [budget.reserve_live(0.0) for _ in range(4)]
    expected = [0.0, *((number + phase) / per_s for number in range(1, 4))]
    assert at_s == pytest.approx(expected)
