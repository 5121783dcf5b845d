"""Lines and objects of the lake: exact bytes, names that say what is inside, the same again for the same events."""

import contextlib
import gzip
import io
import json
import sys
from datetime import UTC, datetime

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.adapters.lake_parquet import PARQUET
from replicator.core.lake import (
    NDJSON,
    Archived,
    LakeFormat,
    LakeObject,
    decode_line,
    encode_line,
    events_in,
    events_of,
    objects_of,
)
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import StoreUnavailable

SOURCE = SourceName("orders")
EAST, WEST = Region("us-east-1"), Region("eu-west-1")
AT_MS = int(datetime(2026, 11, 25, 17, 59, 59, tzinfo=UTC).timestamp() * 1000)
BORN = Origin(WEST, SOURCE, "17", ShardId("shardId-0"), SequenceNumber(10**128), 3)
EVENT = Archived(
    BORN, "e-1", (WEST,), AT_MS, "1700", ShardId("shardId-000000000001"), SequenceNumber(495), 0, "k", b'{"id":"e-1"}'
)

texts = st.text(max_size=30)
LINES = [encode_line(replace(EVENT, sequence=SequenceNumber(n))) for n in (495, 496)]
PACKED = PARQUET.pack(LINES)
both_formats = pytest.mark.parametrize("lake_format", [NDJSON, PARQUET], ids=["ndjson", "parquet"])


def inside(held: LakeObject) -> list[Archived]:
    """What is read again of an object."""
    return events_in(held.name, held.body(), [PARQUET])


def stored(table: pyarrow.Table) -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(table, written)
    return written.getvalue()


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


@both_formats
@given(given_events=st.lists(events, max_size=20))
def test_objects_hold_all_events_once_in_order_each_under_its_origin_and_hour(
    lake_format: LakeFormat, given_events: list[Archived]
) -> None:
    held = objects_of(SOURCE, [encode_line(event) for event in given_events], lake_format)
    found = [event for each in held for event in inside(each)]
    key = repr
    assert sorted(found, key=key) == sorted(given_events, key=key)
    for each in held:
        first, *_ = inside(each)
        at = datetime.fromtimestamp(first.at_ms / 1000, UTC)
        assert each.name.startswith(
            f"orders/origin={first.origin.region}/date={at:%Y-%m-%d}/hour={at:%H}/1700-{first.shard}-"
        )
        same = [
            event
            for event in given_events
            if (event.origin.region, event.at_ms // 3_600_000, event.shard)
            == (first.origin.region, first.at_ms // 3_600_000, first.shard)
        ]
        assert inside(each) == same
    assert len({each.name for each in held}) == len(held)


@both_formats
def test_a_name_says_which_events_and_the_same_events_are_the_same_bytes(lake_format: LakeFormat) -> None:
    lines = [encode_line(replace(EVENT, sequence=SequenceNumber(n))) for n in (495, 496)]
    [one] = objects_of(SOURCE, lines, lake_format)
    [again] = objects_of(SOURCE, lines, lake_format)
    directory, _, name = one.name.rpartition("/")
    assert directory == "orders/origin=eu-west-1/date=2026-11-25/hour=17"
    assert name.startswith("1700-shardId-000000000001-495-496-")
    assert name.endswith(lake_format.suffix)
    assert (one.name, one.body()) == (again.name, again.body())


def test_an_object_of_lines_is_gzip_over_them_and_in_both_formats_it_has_the_same_name_but_for_the_end() -> None:
    lines = [encode_line(replace(EVENT, sequence=SequenceNumber(n))) for n in (495, 496)]
    [held], [in_columns] = objects_of(SOURCE, lines), objects_of(SOURCE, lines, PARQUET)
    assert gzip.decompress(held.body()) == b"".join(lines)
    assert held.name.removesuffix(".ndjson.gz") == in_columns.name.removesuffix(".parquet")


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


def test_parquet_cut_short_anywhere_is_an_error_that_names_it() -> None:
    [held] = objects_of(SOURCE, [encode_line(EVENT)], PARQUET)
    for length in range(len(held.body())):
        with pytest.raises(
            StoreUnavailable, match=r"orders/.*\.parquet can't be read: not Parquet of a lake, or not all"
        ):
            events_in(held.name, held.body()[:length], [PARQUET])


@given(at=st.integers(0, len(PACKED) - 1), flipped=st.integers(1, 255))
def test_parquet_with_a_byte_damaged_is_an_error_or_still_the_same_events(at: int, flipped: int) -> None:
    damaged = PACKED[:at] + bytes([PACKED[at] ^ flipped]) + PACKED[at + 1 :]
    with contextlib.suppress(ValueError):
        assert PARQUET.unpack(damaged) == LINES


def test_parquet_that_others_wrote_anew_is_read_if_our_columns_are_there() -> None:
    """As a compaction leaves it: optional columns in another order, with other types for the same."""
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(PACKED))
    at = table.column("at").cast(pyarrow.timestamp("us", tz="UTC"))
    others = table.drop_columns("at").append_column("at", at).append_column("x", [[None] * len(LINES)])
    assert PARQUET.unpack(stored(others)) == LINES
    with pytest.raises(ValueError, match="key"):
        PARQUET.unpack(stored(table.drop_columns("key")))
    with pytest.raises(ValueError, match="null"):
        PARQUET.unpack(stored(table.drop_columns("id").append_column("id", [[None] * len(LINES)])))


def test_every_coordinate_is_a_typed_column() -> None:
    found = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(PACKED))
    assert (found.num_row_groups, found.metadata.row_group(0).column(0).compression) == (1, "ZSTD")
    assert {field.name: str(field.type) for field in found.schema_arrow} == {
        **dict.fromkeys(
            ("origin_region", "origin_source", "origin_incarnation", "origin_shard", "origin_seq"), "string"
        ),
        **dict.fromkeys(("id", "incarnation", "shard", "seq", "key"), "string"),
        **dict.fromkeys(("origin_sub", "sub"), "int64"),
        "path": "list<element: string not null>",
        "at": "timestamp[ms, tz=UTC]",
        "data": "binary",
    }
    assert found.read().to_pylist()[0] == {
        "origin_region": "eu-west-1",
        "origin_source": "orders",
        "origin_incarnation": "17",
        "origin_shard": "shardId-0",
        "origin_seq": str(10**128),
        "origin_sub": 3,
        "id": "e-1",
        "path": ["eu-west-1"],
        "at": datetime(2026, 11, 25, 17, 59, 59, tzinfo=UTC),
        "incarnation": "1700",
        "shard": "shardId-000000000001",
        "seq": "495",
        "sub": 0,
        "key": "k",
        "data": b'{"id":"e-1"}',
    }


def test_without_pyarrow_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        StoreUnavailable, match=r"a\.parquet can't be read: .*pip install 'region-replicator\[parquet\]'"
    ):
        events_in("a.parquet", PACKED, [PARQUET])
