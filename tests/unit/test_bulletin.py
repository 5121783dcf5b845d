"""A bulletin tells of every row what planning needs, and nothing else."""

from fleet_rows import fleet_rows
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from replicator.core.bulletin import BULLETIN_BYTES_MAX, decode, encode
from replicator.core.lease_reading import POSTED_ROW_BYTES
from replicator.core.model import (
    After,
    Checkpoint,
    Lease,
    LinkName,
    SequenceNumber,
    ShardEnd,
    ShardId,
    SourceName,
)

ORDERS = SourceName("orders")
names = st.none() | st.sampled_from(["w1", "w2", "ip-10-0-0-7-1-é"])
ends = st.just(Checkpoint(ShardEnd()))
rows = st.builds(
    Lease,
    st.just(ORDERS),
    st.text(min_size=1, max_size=20).map(ShardId),
    st.lists(st.sampled_from(["p1", "p2"]).map(ShardId), unique=True).map(tuple),
    st.sampled_from(["1", "2"]),
    names,
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    names,
    st.dictionaries(st.sampled_from(["orders:eu-west-1", "orders:eu-west-2"]).map(LinkName), ends),
)


@given(st.lists(rows, max_size=20))
def test_what_is_encoded_is_decoded(listed: list[Lease]) -> None:
    data = encode(listed)
    assert data is not None
    assert decode(ORDERS, data) == listed


def test_of_the_checkpoints_only_those_of_finished_links_are_told() -> None:
    going_on, done = LinkName("orders:a"), LinkName("orders:b")
    position = Checkpoint(After(SequenceNumber(5)), 7)
    [row] = fleet_rows(1, 1)
    row = replace(row, checkpoints={going_on: position, done: Checkpoint(ShardEnd(), 9)})
    data = encode([row])
    assert data is not None
    assert decode(ORDERS, data) == [replace(row, checkpoints={done: Checkpoint(ShardEnd())})]


def test_a_bulletin_of_another_version_is_not_guessed_at() -> None:
    import zlib

    assert decode(ORDERS, zlib.compress(msgpack.encode([2, "whatever comes"]))) is None


def test_ten_thousand_rows_fit_in_what_the_pace_reckons_with() -> None:
    data = encode(fleet_rows(10_000, 500))
    assert data is not None
    assert len(data) <= 10_000 * POSTED_ROW_BYTES


def test_more_rows_than_an_item_holds_are_not_posted() -> None:
    assert encode(fleet_rows(BULLETIN_BYTES_MAX // 6, 500)) is None
