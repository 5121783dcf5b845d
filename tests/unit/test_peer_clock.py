"""The bounds of a peer's clock hold whatever answers come when, and requests are never dated ahead of it."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.core.peer_clock import DRIFT, PeerClock, PeerTime

EPOCH_MS = 1_800_000_000_000
TOLERANCE_MS = 2_500
WINDOW_MS = 300_000
BELIEVE_AFTER_S = 10.0


def clock() -> PeerClock:
    return PeerClock(tolerance_ms=TOLERANCE_MS, window_ms=WINDOW_MS, believe_after_s=BELIEVE_AFTER_S)


def answer(peer_ms: int, now_s: float, before_ms: int = 1500, after_ms: int = 1500) -> PeerTime:
    return PeerTime(peer_ms - before_ms, peer_ms + after_ms, now_s)


answers = st.lists(
    st.tuples(st.floats(0.1, 600.0), st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=20
)


@given(answers, st.floats(-DRIFT, DRIFT), st.floats(0, 3600))
def test_the_peers_clock_is_within_the_bounds_though_ours_drifts(
    told: list[tuple[float, int, int]], drift: float, after_s: float
) -> None:
    peer, ours_s, true_s = clock(), 100.0, 0.0
    for gap_s, before_ms, after_ms in told:
        true_s += gap_s
        ours_s += gap_s * (1 + drift)
        peer.take(answer(EPOCH_MS + int(true_s * 1000), ours_s, before_ms, after_ms), ours_s)
    known = peer.at(ours_s + after_s * (1 + drift))
    assert known is not None
    true_ms = EPOCH_MS + (true_s + after_s) * 1000
    # Rounded to a millisecond per answer and reading, and a part in a million of a part in a thousand.
    slack_ms = len(told) + 2 + (true_s + after_s) * 1000 * DRIFT * DRIFT
    assert known.earliest_ms - slack_ms <= true_ms <= known.latest_ms + slack_ms
    assert peer.is_steady(ours_s)


def test_answers_narrow_the_bounds() -> None:
    peer = clock()
    peer.take(answer(EPOCH_MS, 0.0, 3000, 100), 0.0)
    peer.take(answer(EPOCH_MS, 0.0, 100, 3000), 0.0)
    known = peer.at(0.0)
    assert known is not None
    assert (known.earliest_ms, known.latest_ms // 10) == (EPOCH_MS - 100, (EPOCH_MS + 100) // 10)


def test_nothing_is_known_before_the_first_answer() -> None:
    assert clock().at(1.0) is None


def test_a_peer_that_seems_to_have_jumped_ahead_is_not_believed_while_leases_may_be_lost_unnoticed() -> None:
    """This process may have stood still for a minute, and others may own its shards."""
    peer = clock()
    peer.take(answer(EPOCH_MS, 0.0), 0.0)
    peer.take(answer(EPOCH_MS + 60_000, 0.0), 0.0)
    for now_s in (0.0, 5.0, 9.9):
        known = peer.at(now_s)
        assert known is not None
        assert known.earliest_ms <= EPOCH_MS + now_s * 1000
        assert known.latest_ms >= EPOCH_MS + 60_000
        assert not peer.is_steady(now_s)
        peer.take(answer(EPOCH_MS + 60_000 + int(now_s * 1000), now_s), now_s)
    known = peer.at(10.0)
    assert known is not None
    assert known.earliest_ms > EPOCH_MS + 60_000
    assert peer.is_steady(10.0)


def test_one_odd_answer_from_ahead_is_forgotten() -> None:
    peer = clock()
    peer.take(answer(EPOCH_MS, 0.0), 0.0)
    peer.take(answer(EPOCH_MS + 60_000, 1.0), 1.0)
    peer.take(answer(EPOCH_MS + 2000, 2.0), 2.0)
    known = peer.at(20.0)
    assert known is not None
    assert known.latest_ms < EPOCH_MS + 30_000
    assert peer.is_steady(20.0)


def test_a_peer_whose_clock_went_back_is_believed_at_once_and_not_called_steady_for_a_window() -> None:
    peer = clock()
    peer.take(answer(EPOCH_MS, 0.0), 0.0)
    peer.take(answer(EPOCH_MS - 60_000, 0.0), 0.0)
    known = peer.at(0.0)
    assert known is not None
    assert known.latest_ms < EPOCH_MS - 50_000
    assert not peer.is_steady(WINDOW_MS / 1000 - 1)
    assert peer.is_steady(WINDOW_MS / 1000)


@given(st.integers(-TOLERANCE_MS, TOLERANCE_MS))
def test_what_is_between_answers_that_disagree_a_little_may_be_true(off_ms: int) -> None:
    peer = clock()
    peer.take(answer(EPOCH_MS, 0.0, 100, 100), 0.0)
    peer.take(answer(EPOCH_MS + off_ms, 0.0, 100, 100), 0.0)
    known = peer.at(0.0)
    assert known is not None
    assert known.earliest_ms <= known.latest_ms
    assert min(EPOCH_MS, EPOCH_MS + off_ms) - 101 <= known.earliest_ms <= min(EPOCH_MS, EPOCH_MS + off_ms) + 101
