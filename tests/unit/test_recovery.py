"""What is in doubt is resolved: real workers against a peer to which requests may be held up for any time."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from small_world import LEASES, LINK, SOURCE, Worker, World, in_virtual_time, until

from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import Operation
from replicator.core.model import Lifetime
from replicator.worker.link import LinkSettings

SHORT = LinkSettings()
held = st.floats(0.0, 400.0)
few = settings(max_examples=15)


@few
@given(st.lists(held, min_size=1, max_size=4), st.sampled_from([0, 7_000, -7_000]))
def test_a_request_held_up_for_any_time_is_stored_once(held_s: list[float], skew_ms: int) -> None:
    async def history() -> Counter[int]:
        world = World(skew_ms=skew_ms)
        worker = Worker(world, "w1", SHORT, held_s=held_s)
        world.write(12, keys=5)
        await until(lambda: world.stored().keys() == world.once_each().keys())
        await asyncio.sleep(500)
        await worker.kill()
        return world.stored()

    assert in_virtual_time(history()) == Counter(range(12))


@few
@given(st.lists(held, min_size=1, max_size=4), st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_what_a_dead_owner_has_on_its_way_for_any_time_is_stored_once(
    held_s: list[float], killed_after_s: float, started_after_s: float
) -> None:
    """The next owner is there at once, or later; it may find the request stored, or have it refused."""

    async def history() -> tuple[Counter[int], int]:
        world = World()
        first = Worker(world, "w1", SHORT, held_s=held_s)
        world.write(12, keys=5)
        await first.network.sent.wait()
        await asyncio.sleep(killed_after_s)
        await first.kill()
        await asyncio.sleep(started_after_s)
        second = Worker(world, "w2", SHORT)
        await until(lambda: world.stored().keys() == world.once_each().keys())
        await asyncio.sleep(500)
        counted = second.link.counts["possible_duplicates_total"]
        await second.kill()
        return world.stored(), counted

    stored, counted = in_virtual_time(history())
    assert stored == Counter(range(12))
    assert counted == 0


@pytest.mark.parametrize(("held_s", "is_late"), [(25.0, False), (35.0, True), (290.0, True)])
def test_the_peer_itself_refuses_what_comes_after_the_lifetime_and_a_takeover_waits_no_longer(
    held_s: float, is_late: bool
) -> None:
    async def history() -> tuple[int, float]:
        world = World()
        first = Worker(world, "w1", SHORT, held_s=[held_s])
        world.write(1)
        await first.network.sent.wait()
        await first.kill()
        begun_s = asyncio.get_running_loop().time()
        second = Worker(world, "w2", SHORT)
        await until(lambda: second.status()["state"] == "up" and bool(world.stored()))
        took_s = asyncio.get_running_loop().time() - begun_s
        await asyncio.sleep(300)
        await second.kill()
        assert world.stored() == world.once_each()
        return first.network.late, took_s

    late, took_s = in_virtual_time(history())
    assert late == is_late
    assert 40 <= took_s <= 40 + 2 * LEASES.duration_s


@settings(max_examples=10)
@given(st.floats(0.0, 329.0))
def test_where_the_peer_refuses_nothing_the_full_wait_holds_and_is_said(held_s: float) -> None:
    async def history() -> None:
        world = World(window_ms=None)
        first = Worker(world, "w1", SHORT, held_s=[held_s])
        world.write(1)
        await first.network.sent.wait()
        await first.kill()
        begun_s = asyncio.get_running_loop().time()
        second = Worker(world, "w2", SHORT)
        await until(lambda: second.status()["state"] == "in_doubt")
        await asyncio.sleep(2)
        in_doubt = second.status()["in_doubt"]
        assert (in_doubt["shards"], in_doubt["wait_s"]) == (1, 330.0)
        assert "does not refuse" in in_doubt["full_wait"]
        gauges = second.tally.gauges
        assert (gauges["peer_fences"], gauges["in_doubt_wait_seconds"], gauges["in_doubt_shards"]) == (0, 330.0, 1)
        await until(lambda: second.status()["state"] == "up")
        assert asyncio.get_running_loop().time() - begun_s >= 330
        await asyncio.sleep(30)
        await second.kill()
        assert world.stored() == world.once_each()

    in_virtual_time(history())


def test_a_clock_that_is_further_off_than_the_margin_means_the_full_wait() -> None:
    async def history() -> None:
        world = World(skew_ms=11_500)
        worker = Worker(world, "w1", SHORT)
        await worker.link.fence.decided.wait()
        in_doubt = worker.status()["in_doubt"]
        assert in_doubt["wait_s"] == 330.0
        assert "from this machine's" in in_doubt["full_wait"]
        assert 10_000 <= in_doubt["clock_offset_ms"] <= 11_500
        await worker.kill()

    in_virtual_time(history())


def test_a_takeover_waits_for_the_lifetime_that_the_former_owner_promised_not_for_its_own() -> None:
    """The former one had another setting, or its last word is of an owner before it."""

    async def wait_s(former: LinkSettings, *, is_silent: bool = False) -> float:
        world = World()
        first = Worker(world, "w1", former, held_s=[1000.0])
        world.write(1)
        await first.network.sent.wait()
        await asyncio.sleep(LEASES.renew_s * 2)
        await first.kill()
        [row] = await world.leases.rows(SOURCE)
        [(link, durable)] = row.checkpoints.items()
        if is_silent:
            durable = replace(durable, lifetime=Lifetime(20_000, row.epoch - 1))
            await world.leases.renew(row, {link: durable})
        begun_s = asyncio.get_running_loop().time()
        second = Worker(world, "w2", SHORT)
        await until(lambda: bool(world.stored()))
        await second.kill()
        return asyncio.get_running_loop().time() - begun_s

    slack_s = 2 * LEASES.duration_s
    for former, expected_s in ((20.0, 30), (100.0, 110)):
        took_s = in_virtual_time(wait_s(replace(SHORT, request_lifetime_s=former)))
        assert expected_s <= took_s <= expected_s + slack_s
    assert in_virtual_time(wait_s(SHORT, is_silent=True)) >= 330


def test_a_wait_that_was_chosen_short_is_obeyed_and_counted() -> None:
    async def history() -> None:
        world = World()
        chosen = replace(SHORT, in_doubt_wait_s=1.0)
        first = Worker(world, "w1", chosen, held_s=[28.0])
        world.write(3)
        await first.network.sent.wait()
        await first.kill()
        second = Worker(world, "w2", chosen)
        await until(lambda: len(world.stored()) == 3)
        status = second.status()
        assert status["in_doubt"]["wait_s"] == 1.0
        assert not status["in_doubt"]["wait_is_safe"]
        assert second.link.counts["possible_duplicates_total"] == 3
        await asyncio.sleep(60)
        await second.kill()
        assert world.stored() == Counter({0: 2, 1: 2, 2: 2})

    in_virtual_time(history())


def test_after_a_graceful_release_nobody_waits() -> None:
    async def history() -> None:
        world = World()
        first = Worker(world, "w1", SHORT)
        world.write(3)
        await until(lambda: len(world.stored()) == 3)
        await first.service.drain()
        world.claims.flush()
        world.write(1)
        begun_s = asyncio.get_running_loop().time()
        second = Worker(world, "w2", SHORT)
        await until(lambda: len(world.stored()) == 4)
        assert asyncio.get_running_loop().time() - begun_s < 10
        await second.kill()
        assert world.stored() == world.once_each()

    in_virtual_time(history())


# --- beyond what the peer can tell ---------------------------------------------------------------------------------


async def _left_in_doubt(world: World, chosen: LinkSettings) -> Worker:
    """The worker that takes over after one that had a request on its way."""
    first = Worker(world, "w1", chosen, held_s=[1.0])
    world.write(3)
    await first.network.sent.wait()
    await first.kill()
    return Worker(world, "w2", chosen)


def test_what_the_peer_no_longer_keeps_is_sent_again_and_counted() -> None:
    async def history() -> None:
        world = World()
        world.peer.retention_ms = 20_000
        second = await _left_in_doubt(world, SHORT)
        await until(lambda: second.link.counts["events_forwarded_total"] == 3)
        assert second.link.counts["possible_duplicates_total"] == 3
        assert second.link.counts["takeovers_unverified_total"] == 1
        await second.kill()

    in_virtual_time(history())


@pytest.mark.parametrize("bound", ["read_back_records_max", "read_back_bytes_max"])
def test_a_bound_that_is_met_means_the_same(bound: str) -> None:
    async def history() -> None:
        world = World()
        second = await _left_in_doubt(world, replace(SHORT, **{bound: 1}))
        await until(lambda: second.link.counts["events_forwarded_total"] == 2)
        await asyncio.sleep(60)
        assert second.link.counts["events_forwarded_total"] == second.link.counts["possible_duplicates_total"] == 2
        await second.kill()

    in_virtual_time(history())


def test_hold_sends_nothing_is_loud_and_ends_when_the_choice_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    async def history() -> None:
        world = World()
        world.peer.retention_ms = 20_000
        second = await _left_in_doubt(world, replace(SHORT, in_doubt_beyond="hold"))
        await until(lambda: second.status()["state"] == "held")
        await asyncio.sleep(1000)
        status = second.status()
        assert status["in_doubt"]["held_shards"] == 1
        assert [shard["state"] for shard in status["shards"].values()] == ["held"]
        assert second.tally.gauges["in_doubt_held_shards"] == 1
        assert second.link.counts["events_forwarded_total"] == 0
        await second.service.drain()
        third = Worker(world, "w3", SHORT)
        await until(lambda: third.link.counts["events_forwarded_total"] == 3)
        assert third.link.counts["possible_duplicates_total"] == 3
        await third.kill()

    in_virtual_time(history())
    assert capsys.readouterr().out.count("set in_doubt_beyond to resend") >= 3


def test_what_is_held_because_of_a_bound_goes_on_when_a_later_reading_is_complete() -> None:
    async def history() -> None:
        world = World()
        second = await _left_in_doubt(world, replace(SHORT, in_doubt_beyond="hold", read_back_records_max=1))
        await until(lambda: second.status()["state"] == "held")
        for shard in world.peer.list_shards():
            world.peer.trim(shard.id, 10)
        await until(lambda: second.status()["state"] == "up")
        await second.kill()

    in_virtual_time(history())


def test_a_request_in_doubt_is_seen_and_may_be_held_as_well() -> None:
    async def history() -> None:
        world = World()
        world.peer.retention_ms = 20_000
        worker = Worker(world, "w1", replace(SHORT, in_doubt_beyond="hold"), held_s=[12.0])
        world.write(2)
        await until(lambda: worker.status()["in_doubt"]["events"] == 2)
        await asyncio.sleep(1)
        assert worker.tally.gauges["in_doubt_events"] == 2
        await until(lambda: worker.status()["state"] == "held")
        await asyncio.sleep(1000)
        await worker.kill()
        assert worker.link.counts["publish_retries_total/in_doubt_not_stored"] == 0

    in_virtual_time(history())


# --- sent again, without asking ------------------------------------------------------------------------------------

RESEND = replace(SHORT, in_doubt="resend", backoff_max_s=0.1)
FIVE_MINUTES_MS = 300_000


@pytest.mark.parametrize(
    ("attempts_lost", "dropped_ms", "counted"),
    [(1, FIVE_MINUTES_MS, 0), (1, None, 3), (25, FIVE_MINUTES_MS, 0), (31, FIVE_MINUTES_MS, 3)],
)
def test_what_is_sent_again_counts_unless_the_sink_drops_it_and_all_of_it_was_within_its_time(
    attempts_lost: int, dropped_ms: int | None, counted: int
) -> None:
    """Every lost attempt is given up after ten seconds."""

    async def history() -> int:
        world = World()
        worker = Worker(world, "w1", RESEND, held_s=[1000.0] * attempts_lost, repeats_dropped_ms=dropped_ms)
        world.write(3)
        await until(lambda: worker.link.counts["events_forwarded_total"] == 3)
        assert worker.link.counts["in_doubt_total"] == 3 * attempts_lost
        await worker.kill()
        return worker.link.counts["possible_duplicates_total"]

    assert in_virtual_time(history()) == counted


@pytest.mark.parametrize(("away_s", "window_ms", "counted"), [(0, 300_000, 0), (400, 300_000, 3), (0, None, 3)])
def test_so_does_what_a_lost_owner_may_have_sent(away_s: float, window_ms: int | None, counted: int) -> None:
    """Where the peer fences nothing, a request of the lost owner may come too late to be dropped."""

    async def history() -> int:
        world = World(window_ms=window_ms)
        first = Worker(world, "w1", RESEND, held_s=[1000.0], repeats_dropped_ms=FIVE_MINUTES_MS)
        world.write(3)
        await first.network.sent.wait()
        await first.kill()
        await asyncio.sleep(away_s)
        second = Worker(world, "w2", RESEND, repeats_dropped_ms=FIVE_MINUTES_MS)
        await until(lambda: second.link.counts["events_forwarded_total"] == 3)
        assert second.link.counts["takeovers_unverified_total"] == 1
        await second.kill()
        return second.link.counts["possible_duplicates_total"]

    assert in_virtual_time(history()) == counted


# --- one reading for all -------------------------------------------------------------------------------------------


def test_all_who_are_in_doubt_at_the_same_time_share_a_reading() -> None:
    async def history() -> None:
        world = World(shards=4)
        readings = 0

        async def count(operation: Operation) -> None:
            nonlocal readings
            readings += operation == "read_back"

        world.peer.before = count
        worker = Worker(world, "w1", SHORT, held_s=[11.0] * 4)
        world.write(40)
        await until(lambda: worker.link.counts["in_doubt_total"] == 40)
        await until(lambda: world.stored() == world.once_each())
        await asyncio.sleep(100)
        assert worker.link.counts["in_doubt_resolved_total/stored"] == 40
        assert readings <= 2 * len(world.peer.list_shards())
        await worker.kill()

    in_virtual_time(history())


def test_what_a_lost_owner_has_sent_is_not_put_away_though_its_key_is_held_since() -> None:
    """The next owner can't know it from marks: the claim store was lost as well."""

    async def history() -> tuple[Counter[int], int]:
        world = World()
        holding = replace(SHORT, on_poison="hold_key")
        quarantine = MemoryQuarantine()
        first = Worker(world, "w1", holding, quarantine=quarantine)
        world.write(1)
        await until(lambda: bool(world.stored()))
        await first.kill()
        world.claims.flush()
        await quarantine.hold(LINK, "k0")
        second = Worker(world, "w2", holding, quarantine=quarantine)
        await until(lambda: bool(second.link.counts["in_doubt_found_total"] or quarantine.events))
        await second.kill()
        return world.stored(), len(quarantine.events)

    assert in_virtual_time(history()) == (Counter([0]), 0)
