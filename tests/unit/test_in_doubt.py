"""How requests are dated and how long a follower waits: whatever clocks and the network do within the stated bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.in_doubt import (
    DATING_ERROR_MS,
    Attempts,
    FenceRules,
    covers,
    dated,
    distrust,
    expired_ms,
    is_repeat_dropped,
    promised_ms,
    safe_wait_ms,
    wider,
)
from replicator.core.model import Checkpoint, Lifetime, TrimHorizon
from replicator.core.peer_clock import PeerTime

EPOCH_MS = 1_800_000_000_000
seconds = st.integers(0, 600).map(lambda s: s * 1000)
lifetimes = st.none() | st.integers(5_000, 300_000)


def receiver_takes(date_ms: int, clock_ms: int, rules: FenceRules) -> bool:
    """SigV4, by the receiver's own clock."""
    return clock_ms - date_ms <= rules.window_ms


@given(
    lifetime_ms=lifetimes,
    peer_ms=st.integers(EPOCH_MS, EPOCH_MS + 86_400_000),
    estimate_error_ms=st.integers(0, 20_000),
    to_takeover_ms=seconds,
    on_the_way_ms=st.integers(0, 3_600_000),
    checks_behind_ms=st.integers(0, 5_000),
    is_trusted=st.booleans(),
)
def test_after_the_wait_nothing_of_the_former_owner_is_taken(
    lifetime_ms: int | None,
    peer_ms: int,
    estimate_error_ms: int,
    to_takeover_ms: int,
    on_the_way_ms: int,
    checks_behind_ms: int,
    is_trusted: bool,
) -> None:
    """Dated at ``peer_ms``; taken over later; arriving any time later. No wall clock of ours occurs."""
    rules = FenceRules()
    request = dated(peer_ms - estimate_error_ms, lifetime_ms, rules)
    wait_over_ms = peer_ms + to_takeover_ms + safe_wait_ms(lifetime_ms, rules, is_trusted=is_trusted)
    arrives_ms = peer_ms + on_the_way_ms
    if arrives_ms >= wait_over_ms:
        assert not receiver_takes(request.date_ms, arrives_ms - checks_behind_ms, rules)


@given(
    peer_ms=st.integers(EPOCH_MS, EPOCH_MS + 86_400_000),
    lost_ms=st.integers(0, DATING_ERROR_MS - 1000),
    lifetime_ms=st.integers(15_000, 300_000),
    timeout_ms=st.integers(0, 10_000),
)
def test_a_request_that_arrives_before_it_is_given_up_is_taken(
    peer_ms: int, lost_ms: int, lifetime_ms: int, timeout_ms: int
) -> None:
    """As long as the lifetime is what the configuration asks for: the timeout and the error of dating."""
    rules = FenceRules(lifetime_ms=lifetime_ms)
    request = dated(peer_ms - lost_ms, lifetime_ms, rules)
    assert receiver_takes(request.date_ms, peer_ms + timeout_ms, rules)


@given(peer_ms=st.integers(EPOCH_MS, EPOCH_MS + 86_400_000), lost_ms=st.integers(0, 20_000))
def test_the_probe_is_refused_by_a_peer_that_fences_and_taken_by_one_whose_check_is_far_behind(
    peer_ms: int, lost_ms: int
) -> None:
    rules = FenceRules()
    date_ms = expired_ms(peer_ms - lost_ms, rules)
    assert not receiver_takes(date_ms, peer_ms, rules)
    assert receiver_takes(date_ms, peer_ms - lost_ms - rules.tolerance_ms, rules)


@given(lifetime_ms=lifetimes)
def test_a_date_has_no_fraction_of_a_second_and_is_rounded_to_the_safe_side(lifetime_ms: int | None) -> None:
    rules = FenceRules()
    request = dated(EPOCH_MS + 999, lifetime_ms, rules)
    exact_ms = EPOCH_MS + 999 - (0 if lifetime_ms is None else rules.window_ms - lifetime_ms)
    assert request.date_ms % 1000 == 0
    assert exact_ms - 1000 < request.date_ms <= exact_ms


def test_the_wait_is_the_lifetime_and_a_margin_or_else_the_window_and_three() -> None:
    rules = FenceRules()
    assert safe_wait_ms(30_000, rules, is_trusted=True) == 40_000
    assert safe_wait_ms(30_000, rules, is_trusted=False) == 330_000
    assert safe_wait_ms(None, rules, is_trusted=True) == 330_000


@given(lifetimes, lifetimes)
def test_a_record_covers_what_lives_no_longer(one_ms: int | None, other_ms: int | None) -> None:
    both_ms = wider(one_ms, other_ms)
    assert covers(both_ms, one_ms)
    assert covers(both_ms, other_ms)
    rules = FenceRules()
    if covers(one_ms, other_ms):
        waits = [safe_wait_ms(ms, rules, is_trusted=True) for ms in (one_ms, other_ms)]
        assert waits[0] >= waits[1]


@pytest.mark.parametrize(
    ("written_under", "taken_under", "promised"),
    [(4, 5, 30_000), (5, 5, 30_000), (3, 5, None), (None, 5, None)],
    ids=["by the owner before", "by oneself", "an owner in between said nothing", "nobody said anything"],
)
def test_a_promise_counts_when_the_last_owner_gave_it(
    written_under: int | None, taken_under: int, promised: int | None
) -> None:
    """A worker of an older version leaves the attribute alone until it first writes a checkpoint."""
    lifetime = None if written_under is None else Lifetime(30_000, written_under)
    assert promised_ms(Checkpoint(TrimHorizon(), 1, lifetime=lifetime), taken_under) == promised


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, ""),
        ({"offset_ms": 10_000}, ""),
        ({"offset_ms": -10_001}, "from this machine's"),
        ({"offset_ms": 10_001}, "from this machine's"),
        ({"is_steady": False}, "contradict"),
        ({"is_refused": False}, "does not refuse requests dated 300 s back"),
    ],
)
def test_a_fence_is_trusted_while_the_peer_refuses_and_clocks_agree(facts: dict[str, int], why: str) -> None:
    said = distrust(**{"is_refused": True, "is_steady": True, "offset_ms": 0} | facts, rules=FenceRules())
    assert (why in said) if why else (said == "")


# --- sent again ----------------------------------------------------------------------------------------------------

DROPPED_MS = 300_000
moments = st.integers(0, 700_000)


@given(
    sent_ms=st.lists(moments, min_size=2, max_size=4).map(sorted),
    on_the_way_ms=st.lists(st.integers(0, 40_000), min_size=4, max_size=4),
    answer_ms=st.integers(0, 20_000),
    are_stored=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_what_is_called_dropped_is_stored_once_at_most(
    sent_ms: list[int], on_the_way_ms: list[int], answer_ms: int, are_stored: list[bool]
) -> None:
    """All attempts but the last are in doubt: each may arrive at any time of its life, or never."""
    rules = FenceRules()
    life_ms = safe_wait_ms(rules.lifetime_ms, rules, is_trusted=True)
    doubt: Attempts | None = None
    for moment in sent_ms[:-1]:
        doubt = Attempts(moment, moment + life_ms).joined(doubt)
    assert doubt is not None
    taken_ms = [
        sent + way for sent, way, stored in zip(sent_ms[:-1], on_the_way_ms, are_stored, strict=False) if stored
    ]
    taken_ms.append(sent_ms[-1] + answer_ms)
    answered = PeerTime(taken_ms[-1], taken_ms[-1] + 2000, 0.0)
    if is_repeat_dropped(doubt, answered, DROPPED_MS, rules):
        assert max(taken_ms) - min(taken_ms) <= DROPPED_MS


def test_a_sink_that_drops_repetitions_leaves_a_possible_duplicate_only_when_it_took_long() -> None:
    rules = FenceRules()
    before = Attempts(0, 40_000)
    assert is_repeat_dropped(before, PeerTime(280_000, 290_000, 0.0), DROPPED_MS, rules)
    assert not is_repeat_dropped(before, PeerTime(280_000, 290_001, 0.0), DROPPED_MS, rules)
    assert not is_repeat_dropped(before, PeerTime(1000, 2000, 0.0), None, rules)
    assert not is_repeat_dropped(Attempts(0, 330_000), PeerTime(1000, 2000, 0.0), DROPPED_MS, rules)
