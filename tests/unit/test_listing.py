"""A large fleet reads its lease table through one of its workers: cheaply, and without losing sight of anybody.

``FRUGAL`` makes a dozen shards a large fleet. The stories are those of `test_lease_keeper`, on its virtual clock.
"""

import asyncio

import pytest
from fleet_rows import fleet_rows
from msgspec import msgpack
from msgspec.structs import replace
from test_lease_keeper import LINK, ORDERS, ROUND_S, Region, now_s, story, until

from replicator.core.bulletin import Bulletin, decode, encode
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Lease, ShardEnd, ShardId
from replicator.worker.listing import TRIES_MAX, Listing

FRUGAL = LeaseSettings(duration_s=10.0, renew_s=3.0, list_every=3, read_units_per_s=0.25)
PERIOD_S = 3.6 * 1.2
"""The longest between two looks of a worker, with 12 shards, one link and up to four workers."""


def table_reads(region: Region) -> int:
    return sum(way.calls["rows"] for way in region.ways.values())


async def even(region: Region, **loads: int) -> float:
    return await until(lambda: region.loads() == loads)


@story(shards=12)
async def test_workers_share_evenly_by_what_one_of_them_posts(region: Region) -> None:
    for me in ("w1", "w2", "w3", "w4"):
        region.worker(me, FRUGAL)
    await even(region, w1=3, w2=3, w3=3, w4=3)
    settled, before, begun_s = len(region.past), table_reads(region), now_s()
    await asyncio.sleep(60)
    assert len(region.past) == settled
    one_reader = (now_s() - begun_s) / (0.75 * PERIOD_S / 1.2 * 0.8)
    assert 0 < table_reads(region) - before <= one_reader
    assert all(way.calls["bulletin"] >= 60 / PERIOD_S - 1 for way in region.ways.values())


@story(shards=12)
async def test_workers_that_join_get_their_share_without_force_and_little_moves_twice(region: Region) -> None:
    region.worker("w1", FRUGAL)
    await even(region, w1=12)
    await until(lambda: bool(region.store._bulletins))
    region.worker("w2", FRUGAL)
    region.worker("w3", FRUGAL)
    await even(region, w1=4, w2=4, w3=4)
    assert "taken_expired" not in [kind for told in region.telemetry.values() for kind in told.kinds]
    assert len(region.past) <= 12 + 8 + 4


@story(shards=12)
async def test_a_dead_worker_is_noticed_a_few_looks_later_than_in_a_small_fleet_and_never_too_early(
    region: Region,
) -> None:
    """`Region.start` refuses a second runner while the first one runs."""
    for me in ("w1", "w2", "w3"):
        region.worker(me, FRUGAL)
    await even(region, w1=4, w2=4, w3=4)
    await region.kill("w2")
    took_s = await even(region, w1=6, w3=6)
    assert FRUGAL.duration_s - ROUND_S <= took_s <= FRUGAL.duration_s + 5 * PERIOD_S


@story(shards=12)
async def test_a_worker_cut_off_from_the_table_stops_before_another_starts(region: Region) -> None:
    for me in ("w1", "w2"):
        region.worker(me, FRUGAL)
    await even(region, w1=6, w2=6)
    region.ways["w1"].state = "hangs"
    await even(region, w2=12)
    assert region.telemetry["w1"].kinds.count("not_renewed") == 6
    region.ways["w1"].state = "open"
    await even(region, w1=6, w2=6)


@story(shards=12)
async def test_who_died_with_the_turn_in_hand_is_passed_over(region: Region) -> None:
    for me in ("w1", "w2"):
        region.worker(me, FRUGAL)
    await even(region, w1=6, w2=6)
    await until(lambda: bool(region.store._bulletins))
    posted = region.store._bulletins[ORDERS]
    assert await region.store.take_turn(ORDERS, (posted.number + 1) * TRIES_MAX)
    took_s = await until(lambda: region.store._bulletins[ORDERS].number > posted.number)
    assert FRUGAL.duration_s - PERIOD_S <= took_s <= FRUGAL.duration_s + 2 * PERIOD_S


@story(shards=12)
async def test_a_post_that_is_lost_while_the_turns_are_not_is_made_anew(region: Region) -> None:
    """An operator removed the item, say: its number was far above what anybody would try next."""
    region.worker("w1", FRUGAL)
    await even(region, w1=12)
    await until(lambda: bool(region.store._bulletins))
    region.store._turns[ORDERS] = 10**6 * TRIES_MAX
    del region.store._bulletins[ORDERS]
    await until(lambda: bool(region.store._bulletins), within_s=25 * FRUGAL.duration_s)
    before = region.store._bulletins[ORDERS].number
    await until(lambda: region.store._bulletins[ORDERS].number > before + 3, within_s=10 * PERIOD_S)


@story(shards=12)
async def test_where_nobody_can_post_everybody_reads_the_table_after_a_while(region: Region) -> None:
    await region.store.take_turn(ORDERS, 1 << 62)
    for me in ("w1", "w2"):
        region.worker(me, FRUGAL)
    assert await even(region, w1=6, w2=6) <= 3 * FRUGAL.duration_s + 5 * PERIOD_S
    await region.kill("w1")
    await even(region, w2=12)
    assert await region.store.bulletin(ORDERS) is None


@story(shards=12)
async def test_nothing_is_planned_on_a_post_of_unknown_age(region: Region) -> None:
    """Left over from days ago, it says that everything is free."""
    region.worker("w1", FRUGAL)
    await even(region, w1=12)
    free = [replace(row, owner=None, epoch=0, beat=0) for row in region.rows().values()]
    stale = encode(free)
    assert stale is not None
    region.store._bulletins[ORDERS] = Bulletin(10**6, stale)
    region.store._turns.clear()
    region.worker("w2", FRUGAL)
    await until(lambda: region.ways["w2"].calls["bulletin"] >= 1)
    await asyncio.sleep(0.2)
    assert region.ways["w2"].calls["acquire"] == 0
    await even(region, w1=6, w2=6)


@story(shards=12)
async def test_a_post_of_a_newer_version_is_left_to_newer_workers(region: Region) -> None:
    import zlib

    newer = zlib.compress(msgpack.encode([2, "something else"]))
    assert decode(ORDERS, newer) is None
    region.store._bulletins[ORDERS] = Bulletin(7, newer)
    for me in ("w1", "w2"):
        region.worker(me, FRUGAL)
    await even(region, w1=6, w2=6)


@story(shards=12)
async def test_a_child_starts_when_its_parent_is_done_although_posts_leave_checkpoints_out(region: Region) -> None:
    for me in ("w1", "w2", "w3", "w4"):
        region.worker(me, FRUGAL)
    await even(region, w1=3, w2=3, w3=3, w4=3)
    [parent] = [runner for runner in region.running if runner.lease.shard == ShardId("s0")]
    child = replace(region.source.listed[0], id=ShardId("child"), parents=(parent.lease.shard,))
    region.source.listed.append(child)
    await until(lambda: len(region.running) == 13)
    owner = next(runner.me for runner in region.running if runner.lease.shard == child.id)
    assert not region.keepers[owner].parents_done(region.rows()[child.id], LINK)
    parent.end = ShardEnd()
    await until(lambda: region.keepers[owner].parents_done(region.rows()[child.id], LINK))
    region.source.listed.remove(region.source.listed[0])
    await until(lambda: ShardId("s0") not in region.rows())


@story(shards=12)
async def test_a_small_fleet_posts_nothing_and_reads_the_table_every_renewal_period(region: Region) -> None:
    for me in ("w1", "w2"):
        region.worker(me)
    await even(region, w1=6, w2=6)
    before = table_reads(region)
    await asyncio.sleep(60)
    assert table_reads(region) - before >= 2 * 60 / ROUND_S - 2
    assert not region.store._bulletins
    assert [way.calls["bulletin"] for way in region.ways.values()] == [0, 0]


# --- what may be planned on ----------------------------------------------------------------------------------------


def reader(region: Region, shards: int = 12) -> Listing:
    listing = Listing(region.store, ORDERS, links=1, settings=FRUGAL)
    listing.expect(shards)
    return listing


async def post(region: Region, number: int, *rows: Lease) -> None:
    data = encode(rows)
    assert data is not None
    await region.store.post(ORDERS, Bulletin(number, data))


ROWS = [replace(row, owner="w1", epoch=1, beat=5) for row in fleet_rows(12, 3)]
FIRST, *OTHERS = ROWS


@story(shards=0)
async def test_the_first_post_may_be_of_any_age_and_only_the_next_one_is_planned_on(region: Region) -> None:
    listing = reader(region)
    await post(region, 5, *ROWS)
    assert await listing.read() is None
    assert await listing.read() is None, "the same one again"
    await post(region, 6, *ROWS)
    news = await listing.read()
    assert news is not None
    assert news.rows == ROWS
    assert not news.is_own


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        (replace(FIRST, owner="me", epoch=2, beat=6), replace(FIRST, owner="w3", epoch=3, beat=9)),
        (replace(FIRST, owner=None, beat=6), replace(FIRST, owner=None, beat=6)),
        (replace(FIRST, wanted_by="me"), replace(FIRST, beat=8, wanted_by="me")),
    ],
    ids=["taken", "released", "asked for"],
)
def test_after_a_move_only_a_post_that_shows_it_is_planned_on_or_the_second_one(own: Lease, shown: Lease) -> None:
    @story(shards=0)
    async def tell(region: Region) -> None:
        listing = reader(region)
        await post(region, 5, *ROWS)
        await listing.read()
        for number in (6, 9):
            await post(region, number, *ROWS)
            assert await listing.read() is not None
            listing.wrote(own)
            await post(region, number + 1, replace(FIRST, beat=own.beat - (own.owner != "w1")), *OTHERS)
            assert await listing.read() is None, "made before the move, or so it may be"
            await post(region, number + 2, *ROWS)
            assert await listing.read() is not None, "made after the move, whatever it shows"
        listing.wrote(own)
        await post(region, 12, shown, *OTHERS)
        assert await listing.read() is not None

    tell()


@story(shards=0)
async def test_only_silence_while_listening_counts_as_silence(region: Region) -> None:
    """A worker that read the table itself for a while does not leap ahead with the numbers of posts."""
    listing = reader(region, shards=1)
    for _ in range(400):
        await listing.read()
        await asyncio.sleep(3)
    listing.expect(12)
    await listing.read()
    assert region.store._turns == {ORDERS: TRIES_MAX}
