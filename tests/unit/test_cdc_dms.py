"""Records of AWS DMS: rows byte for byte, control records, and which records can be known for repeats."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_changes import HERE, TAG, event_of
from test_home import TABLE, preparer_of

from replicator.core.cdc_dms import DmsFormat
from replicator.core.formats import Decoded
from replicator.core.model import Record
from replicator.core.routing import Drop, HomeRouter
from replicator.core.tag import encode_tag
from replicator.errors import PoisonEvent
from replicator.ports import Page
from replicator.worker.prepare import Prepared

DMS = DmsFormat(HERE, before_field="before-image", control="drop")
ALL = DmsFormat(HERE, before_field="BI", control="forward")
AT = "2024-07-29T00:58:17.974340Z"
AT_MS = 1722214697974
DETAILS = {
    "commit-timestamp": AT,
    "stream-position": "00000002/7C007178.3.00000002/7C007178",
    "transaction-id": 1139,
    "transaction-record-id": 1,
}
CONTROL = (
    b'{"metadata":{"timestamp":"2021-02-18T23:09:09.509179Z","record-type":"control","operation":"create-table",'
    b'"partition-key-type":"task-id","schema-name":"","table-name":"awsdms_apply_exceptions"}}'
)


def record(operation: str, row: str = '{"id":1}', *, before: str = "", **changed: Any) -> bytes:
    metadata = {
        "timestamp": AT,
        "record-type": "data",
        "operation": operation,
        "partition-key-type": "primary-key",
        "schema-name": "sales",
        "table-name": "orders",
        **changed,
    }
    parts = [f'"data":\t{row}', f'"before-image":\t{before}' if before else "", f'"metadata":\t{json.dumps(metadata)}']
    return ("{\n\t" + ",\n\t".join(filter(None, parts)) + "\n}").encode()


def prepared(numbers: list[str], datas: list[bytes]) -> list[Prepared]:
    preparer = preparer_of(TABLE, DMS)
    records = tuple(Record(data, "k", number, 4321) for number, data in zip(numbers, datas, strict=True))
    return list(preparer.prepare(Page(records, None, 0)))


def poison_of(data: bytes, event_format: DmsFormat = DMS) -> str:
    with pytest.raises(PoisonEvent) as caught:
        event_format.decode(data)
    return caught.value.reason


@pytest.mark.parametrize(
    ("operation", "verb", "new", "old"),
    [
        ("load", "loaded", {"id": 1}, None),
        ("insert", "created", {"id": 1}, None),
        ("update", "updated", {"id": 1}, {"id": 0}),
        ("delete", "deleted", None, {"id": 1}),
    ],
)
def test_a_row_is_told_in_the_envelope_of_aws_lambda_stream(operation: str, verb: str, new: Any, old: Any) -> None:
    data = record(operation, before='{"id":0}' if operation == "update" else "")
    event = event_of(DMS.decode(data))
    assert event == {
        "id": event["id"],
        "type": f"orders-{verb}",
        "timestamp": AT_MS,
        "tags": {"region": HERE, "table": "orders", "schema": "sales"},
        "raw": {"new": new, "old": old},
    }


def test_the_before_image_goes_by_the_name_the_task_gives_it() -> None:
    renamed = record("update", before='{"id":0}').replace(b"before-image", b"BI")
    assert event_of(ALL.decode(renamed))["raw"]["old"] == {"id": 0}
    assert event_of(DMS.decode(renamed))["raw"]["old"] is None


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,60})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
rows = st.dictionaries(st.text(max_size=5), numbers | st.text(max_size=8).map(json.dumps), max_size=5).map(
    lambda row: "{ " + " , ".join(f"{json.dumps(name)} : {value}" for name, value in row.items()) + " }"
)


@given(rows, rows)
def test_images_keep_every_byte(row: str, before: str) -> None:
    decoded = DMS.decode(record("update", row, before=before))
    assert f'"raw":{{"new":{row},"old":{before}}}'.encode() in decoded.tail


def test_control_records_are_dropped_by_name_or_told_if_asked_for() -> None:
    assert DMS.decode(CONTROL).drop == "control_record"
    [dropped] = prepared(["7"], [CONTROL])
    assert dropped.route is not None
    assert HomeRouter().decide(dropped.route) == Drop("control_record")
    event = event_of(ALL.decode(CONTROL))
    assert event["type"] == "awsdms_apply_exceptions-create-table"
    assert event["raw"] == {"control": None}


def test_without_transaction_details_equal_records_are_two_events_under_one_id_for_consumers() -> None:
    data = record("insert")
    first, second = prepared(["7", "8"], [data, data])
    assert first.claim != second.claim
    assert first.decoded is not None
    assert second.decoded is not None
    assert event_of(first.decoded)["id"] == event_of(second.decoded)["id"]
    [again] = prepared(["7"], [data])
    assert again.claim == first.claim


def test_with_transaction_details_what_is_told_again_later_is_one_event() -> None:
    data = record("insert", **DETAILS)
    later = record("insert", **DETAILS | {"timestamp": "2024-07-29T01:00:00.000000Z", "prev-transaction-id": 7})
    third = record("insert", **DETAILS | {"transaction-record-id": 2})
    first, again, another = prepared(["7", "8", "9"], [data, later, third])
    assert first.claim == again.claim
    assert first.claim[:16] != another.claim[:16]
    assert first.decoded is not None
    source = event_of(first.decoded)["raw"]["source"]
    assert source == {name: DETAILS[name] for name in DETAILS if name != "commit-timestamp"}


def test_a_times_zone_is_utc_where_it_names_none() -> None:
    assert event_of(DMS.decode(record("load", timestamp="1969-12-31T23:59:59.999")))["timestamp"] == -1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"row",
        b"{}",
        b'{"data":{}}',
        record("rename-table"),
        record("insert", "[1]"),
        record("insert", "null"),
        record("update", before="7"),
        record("insert", timestamp="yesterday"),
        record("insert", **{"record-type": "other"}),
    ],
)
def test_what_is_no_record_of_a_row_is_poison(data: bytes) -> None:
    assert poison_of(data) == "bad_change"


def test_what_became_of_a_record_in_a_hub_is_read_back_by_its_tag() -> None:
    decoded = DMS.decode(record("insert"))
    again = DMS.decode(decoded.with_tag(encode_tag(TAG)))
    assert (again.tag, again.check()) == (TAG, decoded.check())


@given(st.binary(max_size=200) | st.builds(lambda cut: record("insert", **DETAILS)[:cut], st.integers(0, 500)))
def test_nothing_but_poison_comes_of_other_bytes(data: bytes) -> None:
    for event_format in (DMS, ALL):
        with contextlib.suppress(PoisonEvent):
            assert isinstance(event_format.decode(data), Decoded)


@given(st.text(max_size=30), st.text(max_size=10), st.text(max_size=10))
def test_nothing_but_poison_comes_of_other_texts(time: str, table: str, operation: str) -> None:
    data = record("insert", timestamp=time) + b" "
    with contextlib.suppress(PoisonEvent):
        DMS.decode(data)
    assert event_of(ALL.decode(record(operation, **{"record-type": "control", "table-name": table})))
