"""Lines and objects of the lake: exact bytes, names that say what is inside, the same again for the same events."""

import gzip
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.core.lake import Archived, decode_line, encode_line, events_of, objects_of
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName

SOURCE = SourceName("orders")
EAST, WEST = Region("us-east-1"), Region("eu-west-1")
AT_MS = int(datetime(2026, 11, 25, 17, 59, 59, tzinfo=UTC).timestamp() * 1000)
BORN = Origin(WEST, SOURCE, "17", ShardId("shardId-0"), SequenceNumber(10**128), 3)
EVENT = Archived(
    BORN, "e-1", (WEST,), AT_MS, "1700", ShardId("shardId-000000000001"), SequenceNumber(495), 0, "k", b'{"id":"e-1"}'
)

texts = st.text(max_size=30)
datas = st.binary(max_size=200) | st.text(max_size=100).map(str.encode)
events = st.builds(
    Archived,
    origin=st.builds(
        Origin,
        region=st.sampled_from((EAST, WEST)),
        source=st.just(SOURCE),
        incarnation=texts,
        shard=texts,
        sequence=st.integers(0, 10**129 - 1),
        sub_sequence=st.integers(0, 10**6),
    ),
    event_id=texts,
    path=st.lists(st.sampled_from((EAST, WEST)), max_size=3).map(tuple),
    at_ms=st.integers(0, 4 * 10**12),
    incarnation=st.just("1700"),
    shard=st.sampled_from(("shardId-0", "shardId-1")),
    sequence=st.integers(0, 10**129 - 1),
    sub_sequence=st.integers(0, 10**6),
    partition_key=texts,
    data=datas,
)


@given(events)
def test_an_event_comes_out_of_its_line_as_it_went_in_byte_for_byte(event: Archived) -> None:
    line = encode_line(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_line(line) == event


def test_a_line_is_json_that_anybody_reads() -> None:
    assert json.loads(encode_line(EVENT)) == {
        "origin": ["eu-west-1", "orders", "17", "shardId-0", str(10**128), 3],
        "id": "e-1",
        "path": ["eu-west-1"],
        "at": AT_MS,
        "incarnation": "1700",
        "shard": "shardId-000000000001",
        "seq": "495",
        "key": "k",
        "data": '{"id":"e-1"}',
    }
    packed = json.loads(encode_line(replace(EVENT, data=b"\xff", sub_sequence=2)))
    assert (packed["data_base64"], packed["sub"], "data" in packed) == ("/w==", 2, False)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", encode_line(EVENT).replace(b'"data"', b'"other"')])
def test_what_is_no_line_of_ours_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode_line(raw)


@given(st.lists(events, max_size=20))
def test_objects_hold_all_events_once_in_order_each_under_its_origin_and_hour(given_events: list[Archived]) -> None:
    held = objects_of(SOURCE, [encode_line(event) for event in given_events])
    found = [event for each in held for event in events_of(each.body())]
    key = repr
    assert sorted(found, key=key) == sorted(given_events, key=key)
    for each in held:
        inside = list(events_of(each.body()))
        at = datetime.fromtimestamp(inside[0].at_ms / 1000, UTC)
        assert each.name.startswith(
            f"orders/origin={inside[0].origin.region}/date={at:%Y-%m-%d}/hour={at:%H}/1700-{inside[0].shard}-"
        )
        same = [
            event
            for event in given_events
            if (event.origin.region, event.at_ms // 3_600_000, event.shard)
            == (inside[0].origin.region, inside[0].at_ms // 3_600_000, inside[0].shard)
        ]
        assert inside == same
    assert len({each.name for each in held}) == len(held)


def test_a_name_says_which_events_and_the_same_events_are_the_same_bytes() -> None:
    lines = [encode_line(replace(EVENT, sequence=SequenceNumber(n))) for n in (495, 496)]
    [one] = objects_of(SOURCE, lines)
    [again] = objects_of(SOURCE, lines)
    directory, _, name = one.name.rpartition("/")
    assert directory == "orders/origin=eu-west-1/date=2026-11-25/hour=17"
    assert name.startswith("1700-shardId-000000000001-495-496-")
    assert name.endswith(".ndjson.gz")
    assert (one.name, one.body()) == (again.name, again.body())
    assert gzip.decompress(one.body()) == b"".join(lines)


def test_other_events_between_the_same_ends_have_another_name() -> None:
    """An owner that was lost may still write what it took for the whole run."""
    ends = [encode_line(replace(EVENT, sequence=SequenceNumber(n))) for n in (1, 3)]
    middle = encode_line(replace(EVENT, sequence=SequenceNumber(2)))
    [short] = objects_of(SOURCE, ends)
    [whole] = objects_of(SOURCE, [ends[0], middle, ends[1]])
    assert short.name != whole.name


def test_an_object_cut_short_is_an_error() -> None:
    [held] = objects_of(SOURCE, [encode_line(EVENT)])
    with pytest.raises(ValueError, match="not all of it"):
        list(events_of(held.body()[:-9]))
    with pytest.raises(ValueError, match="not gzip"):
        list(events_of(b"{}"))
