"""What is taken for granted to be kept was never trimmed, however the retention was changed."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from small_world import SOURCE, World, in_virtual_time

from replicator.adapters.memory_leases import MemoryLeases
from replicator.core.retention import SHORTEST_MS, Kept, first_look
from replicator.worker.retention import Retention

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
times_ms = st.integers(0, 10 * DAY_MS)
retentions_ms = st.integers(1, 14).map(lambda days: days * DAY_MS)


@given(first_ms=retentions_ms, changes=st.lists(st.tuples(times_ms, retentions_ms, times_ms)), later_ms=times_ms)
def test_nothing_that_was_trimmed_is_taken_for_granted(
    first_ms: int, changes: list[tuple[int, int, int]], later_ms: int
) -> None:
    """The retention is changed, at a time that nobody sees, and then looked at."""
    now_ms, retention_ms = 0, first_ms
    trimmed_ms = now_ms - SHORTEST_MS  # by a change that was made a moment before the first look
    kept = first_look(first_ms, now_ms)
    for before_ms, changed_ms, after_ms in changes:
        now_ms += before_ms
        trimmed_ms = max(trimmed_ms, now_ms - retention_ms)
        retention_ms = changed_ms
        now_ms += after_ms
        trimmed_ms = max(trimmed_ms, now_ms - retention_ms)
        kept = kept.then(retention_ms, now_ms)
    now_ms += later_ms
    trimmed_ms = max(trimmed_ms, now_ms - retention_ms)
    assert now_ms - kept.surely_ms(now_ms) >= trimmed_ms


def test_what_a_longer_retention_keeps_grows_with_time_up_to_the_whole() -> None:
    kept = Kept(DAY_MS, 0).then(7 * DAY_MS, 10 * DAY_MS)
    days = [(kept.surely_ms((10 + day) * DAY_MS) + 600_000) / DAY_MS for day in range(9)]
    assert days == [1, 2, 3, 4, 5, 6, 7, 7, 7]


def test_a_worker_that_comes_after_the_change_knows_of_it_and_one_that_sees_none_writes_nothing() -> None:
    async def history() -> None:
        leases = MemoryLeases()
        first = Retention(leases, SOURCE, World())
        await first.note(DAY_MS)
        written = await leases.kept(SOURCE)
        await asyncio.sleep(10 * DAY_MS / 1000)
        await first.note(DAY_MS)
        assert await leases.kept(SOURCE) == written
        second = Retention(leases, SOURCE, World())
        await second.note(7 * DAY_MS)
        assert second.ms == 7 * DAY_MS
        await asyncio.sleep(DAY_MS / 1000)
        third = Retention(leases, SOURCE, World())
        await third.note(7 * DAY_MS)
        for retention, days in ((first, 1), (second, 2), (third, 2)):
            assert retention.is_old(days * DAY_MS, World.now_ms())
            assert not retention.is_old(days * DAY_MS - HOUR_MS, World.now_ms())

    in_virtual_time(history())


def test_a_source_without_a_retention_leaves_nothing_in_the_table_and_nothing_of_it_is_old() -> None:
    async def history() -> None:
        leases = MemoryLeases()
        retention = Retention(leases, SOURCE, World())
        await retention.note(0)
        assert (retention.ms, await leases.kept(SOURCE)) == (None, None)
        assert not retention.is_old(100 * DAY_MS, World.now_ms())

    in_virtual_time(history())
