"""How often the rows are read: as ever in a small fleet, within a bound in a large one."""

from fleet_rows import worker_names
from hypothesis import given
from hypothesis import strategies as st

from replicator.aws.lease_rows import item_bytes, new_row, stored_checkpoint
from replicator.core.bulletin import BULLETIN_BYTES_MAX
from replicator.core.lease_reading import (
    DESCRIPTIONS_PER_S,
    LINK_BYTES,
    ROW_BYTES,
    SHARDS_A_WORKER,
    UNIT_BYTES,
    Pace,
    listing_units,
    pace,
    posted_bytes,
)
from replicator.core.leasing import LeaseSettings
from replicator.core.model import After, Checkpoint, Lifetime, SequenceNumber, Shard, ShardId, SourceName

SETTINGS = LeaseSettings(duration_s=10.0, renew_s=3.0)


def fleet_units_per_s(rows: int, links: int, workers: int) -> float:
    """What the whole fleet reads at the pace it is given."""
    given = pace(rows, links, workers, SETTINGS)
    if not given.is_shared:
        return workers * listing_units(rows, links) / given.period_s
    return (listing_units(rows, links) + workers * posted_bytes(rows) / UNIT_BYTES / 2) / given.period_s


def test_tens_of_shards_are_read_from_the_table_every_renewal_period() -> None:
    for rows, links, workers in ((1, 1, 1), (12, 3, 4), (96, 9, 8), (500, 3, 20)):
        assert pace(rows, links, workers, SETTINGS) == Pace(is_shared=False, period_s=3.0, list_every=10)


def test_500_workers_and_10_000_shards_hear_of_each_other_every_few_seconds() -> None:
    given = pace(10_000, 3, 500, SETTINGS)
    assert given.is_shared
    assert given.period_s < 1.5 * SETTINGS.renew_s


@given(st.integers(0, 200_000), st.integers(1, 11), st.integers(1, 5000))
def test_the_fleet_stays_within_its_bound_whatever_its_size(rows: int, links: int, workers: int) -> None:
    assert fleet_units_per_s(rows, links, workers) <= SETTINGS.read_units_per_s * 1.001


def test_rows_that_fit_no_bulletin_are_read_from_the_table_all_the_more_rarely() -> None:
    rows = BULLETIN_BYTES_MAX
    given = pace(rows, 1, 1000, SETTINGS)
    assert not given.is_shared
    assert given.period_s > 60


def test_a_worker_that_sees_nobody_yet_expects_as_many_as_the_shards_need() -> None:
    assert pace(10_000, 1, 1, SETTINGS) == pace(10_000, 1, 10_000 // SHARDS_A_WORKER, SETTINGS)


def test_the_source_is_asked_for_its_shards_within_what_an_account_may_ask() -> None:
    given = pace(10_000, 1, 2000, SETTINGS)
    assert 2000 / (given.list_every * given.period_s) <= DESCRIPTIONS_PER_S


def test_a_real_row_is_no_larger_than_reckoned_with() -> None:
    """With names as ECS, Kinesis and the configuration give them, and numbers as long as they get in years."""
    row = new_row(SourceName("orders"), Shard(ShardId("shardId-000000004711")), "1763899200000")
    row |= {"owner": {"S": worker_names(500)[-1]}, "epoch": {"N": "104711"}, "beat": {"N": "1047110000"}}
    bare = item_bytes(row)
    checkpoint = Checkpoint(After(SequenceNumber(10**55 * 4 + 7)), 1763899200000, None, Lifetime(30_000, 104711))
    row["checkpoints"]["M"] = {
        f"orders:ap-southeast-{number}": {"M": stored_checkpoint(checkpoint)} for number in "123"
    }
    assert ROW_BYTES * 0.85 < bare <= ROW_BYTES
    assert LINK_BYTES * 0.85 < (item_bytes(row) - bare) / 3 <= LINK_BYTES
