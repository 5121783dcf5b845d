"""Waiting: bounded, jittered, and shared fairly."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.backoff import PeerHealth, delay_s
from replicator.core.budget import ReadBudget


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_positive_and_never_above_the_maximum(attempt: int, draw: float) -> None:
    assert 0 < delay_s(attempt, draw, base_s=0.1, max_s=20.0) <= 20.0


def test_failures_of_requests_already_under_way_do_not_lengthen_the_wait() -> None:
    health = PeerHealth()
    for _ in range(4):
        health.failed(100.0, 0.5, "down", base_s=1.0, max_s=60.0)
    assert health.failures == 1
    assert 0 < health.wait_s(100.0) <= 1.0


def test_a_success_opens_the_link_at_once() -> None:
    health = PeerHealth()
    health.failed(0.0, 0.9, "down", base_s=1.0, max_s=60.0)
    health.succeeded()
    assert health.wait_s(0.0) == 0
    assert health.last_error == ""


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_no_second_holds_more_calls_than_the_budget(calls: list[tuple[bool, float]]) -> None:
    budget = ReadBudget(4.0, 0.0)
    now_s, made = 0.0, []
    for is_live, step_s in calls:
        now_s += step_s
        made.append(now_s + budget.reserve(now_s, is_live=is_live))
    made.sort()
    assert all(later - earlier >= 1.0 - 1e-6 for earlier, later in zip(made, made[4:], strict=False))


def test_the_live_reader_gets_at_least_half_of_a_contended_budget() -> None:
    budget = ReadBudget(4.0, 0.0)
    live_free_s = behind_free_s = 0.0
    live = behind = 0
    for tick in range(400):
        now_s = tick * 0.05
        if now_s >= live_free_s:
            live_free_s = now_s + budget.reserve(now_s, is_live=True)
            live += 1
        if now_s >= behind_free_s:
            behind_free_s = now_s + budget.reserve(now_s, is_live=False)
            behind += 1
    assert live >= behind
    assert behind > 0
