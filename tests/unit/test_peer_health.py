"""When a link may send to its peer: failures close it for a time, time and any answer open it."""

from replicator.core.peer_health import PeerHealth


def failed(health: PeerHealth, at_s: float) -> None:
    health.failed(at_s, 0.5, "down", base_s=1.0, max_s=60.0)


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


def test_time_alone_opens_it_and_the_next_failure_closes_it_for_longer() -> None:
    health = PeerHealth()
    failed(health, 0.0)
    first_s = health.wait_s(0.0)
    assert health.wait_s(first_s) == 0
    failed(health, first_s)
    assert health.wait_s(first_s) > first_s > 0
