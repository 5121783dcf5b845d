"""Debezium's change events: rows byte for byte, what is no row by name, and a repeat is one event."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cdc_dms import rows
from test_changes import HERE, TAG, event_of
from test_home import TABLE, prepared_by, preparer_of

from replicator.core.cdc_debezium import DebeziumFormat
from replicator.core.formats import Decoded
from replicator.core.tag import encode_tag
from replicator.errors import PoisonEvent

DEBEZIUM = DebeziumFormat(HERE)
BASE = {"version": "2.7.0.Final", "name": "shop", "ts_ms": 1589362330904, "snapshot": "false", "db": "inventory"}
POSTGRES = {
    **BASE,
    "connector": "postgresql",
    "sequence": '["24023119","24023128"]',
    "schema": "public",
    "table": "customers",
    "txId": 555,
    "lsn": 24023128,
    "xmin": None,
}
MYSQL = {
    **BASE,
    "connector": "mysql",
    "table": "customers",
    "server_id": 223344,
    "gtid": None,
    "file": "mysql-bin.000003",
    "pos": 484,
    "row": 0,
    "thread": 7,
    "query": None,
}
SQL_SERVER = {
    **BASE,
    "connector": "sqlserver",
    "schema": "dbo",
    "table": "customers",
    "change_lsn": "00000027:00000758:0003",
    "commit_lsn": "00000027:00000758:0005",
    "event_serial_no": "1",
}
ORACLE = {**BASE, "connector": "oracle", "schema": "DEBEZIUM", "table": "customers", "scn": "2122185", "ssn": 0}
MONGO = {**BASE, "connector": "mongodb", "collection": "customers", "ord": 31, "lsid": None, "txnNumber": None}
SOURCES = [POSTGRES, MYSQL, SQL_SERVER, ORACLE, MONGO]
CONNECTORS = [str(source["connector"]) for source in SOURCES]


def record(
    op: str = "c",
    before: str = "null",
    after: str = '{"id":1}',
    *,
    source: dict[str, Any] = POSTGRES,
    at: int = 1,
    transaction: Any = None,
) -> bytes:
    rest = json.dumps({"source": source, "op": op, "ts_ms": at, "transaction": transaction})
    return f'{{"before":{before},"after":{after},{rest[1:]}'.encode()


def wrapped(data: bytes) -> bytes:
    return b'{"schema":{"type":"struct","fields":[],"name":"shop.Envelope"},"payload":' + data + b"}"


def claim(data: bytes, number: str = "7") -> bytes:
    prepared = prepared_by(preparer_of(TABLE, DEBEZIUM), data)
    assert prepared.poison is None
    return prepared.claim


def poison_of(data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        DEBEZIUM.decode(data)
    return caught.value.reason


@pytest.mark.parametrize("wrap", [bytes, wrapped])
@pytest.mark.parametrize(
    ("op", "before", "after", "verb"),
    [
        ("c", "null", '{"id":1}', "created"),
        ("u", '{"id":0}', '{"id":1}', "updated"),
        ("d", '{"id":0}', "null", "deleted"),
        ("r", "null", '{"id":1}', "loaded"),
        ("t", "null", "null", "truncated"),
    ],
)
def test_a_row_is_told_with_its_place_in_the_log(wrap: Any, op: str, before: str, after: str, verb: str) -> None:
    event = event_of(DEBEZIUM.decode(wrap(record(op, before, after))))
    assert event == {
        "id": event["id"],
        "type": f"customers-{verb}",
        "timestamp": 1589362330904,
        "tags": {
            "region": HERE,
            "table": "customers",
            "connector": "postgresql",
            "server": "shop",
            "db": "inventory",
            "schema": "public",
        },
        "raw": {"new": json.loads(after), "old": json.loads(before), "source": {"lsn": 24023128, "txId": 555}},
    }


def test_a_message_of_the_log_is_told() -> None:
    data = record("m")[:-1] + b',"message":{"prefix":"foo","content":"Ymfy"}}'
    source = {name: value for name, value in POSTGRES.items() if name not in {"table", "schema"}}
    data = data.replace(json.dumps(POSTGRES).encode(), json.dumps({**source, "table": ""}).encode())
    event = event_of(DEBEZIUM.decode(data))
    assert (event["type"], event["raw"]["message"]) == ("message", {"prefix": "foo", "content": "Ymfy"})


def test_documents_of_mongodb_stay_the_text_they_are() -> None:
    event = event_of(DEBEZIUM.decode(record(after=json.dumps('{"_id": 1}'), source=MONGO)))
    assert (event["type"], event["raw"]["new"]) == ("customers-created", '{"_id": 1}')


@given(rows, rows)
def test_images_keep_every_byte(before: str, after: str) -> None:
    for data in (record("u", before, after), wrapped(record("u", before, after))):
        assert f'"raw":{{"new":{after},"old":{before},'.encode() in DEBEZIUM.decode(data).tail


@pytest.mark.parametrize("source", SOURCES, ids=CONNECTORS)
@given(row=rows)
def test_what_is_told_again_after_a_restart_has_the_same_claim(source: dict[str, Any], row: str) -> None:
    first = record(after=row, source=source)
    again = record(after=row, source={**source, "sequence": '["24029999","24023128"]', "version": "2.7.1"}, at=999)
    assert claim(first) == claim(again) == claim(wrapped(again))


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (POSTGRES, {"lsn": 24023129}),
        (MYSQL, {"pos": 485}),
        (MYSQL, {"row": 1}),
        (MYSQL, {"file": "mysql-bin.000004"}),
        (SQL_SERVER, {"event_serial_no": "2"}),
        (ORACLE, {"scn": "2122186"}),
        (MONGO, {"ord": 32}),
        (POSTGRES, {"table": "others"}),
        (POSTGRES, {"db": "other"}),
    ],
)
def test_another_place_is_another_event(source: dict[str, Any], place: dict[str, Any]) -> None:
    assert DEBEZIUM.decode(record(source=source)).event_id != DEBEZIUM.decode(record(source=source | place)).event_id


def test_rows_of_one_place_are_told_apart_by_what_they_are_and_by_their_number_in_the_transaction() -> None:
    ids = [
        DEBEZIUM.decode(data).event_id
        for data in (
            record(),
            record(after='{"id":2}'),
            record("d", '{"id":1}', "null"),
            record(transaction={"id": "555", "total_order": 1, "data_collection_order": 1}),
            record(transaction={"id": "555", "total_order": 2, "data_collection_order": 2}),
        )
    ]
    assert None not in ids
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "data",
    [
        record("r"),
        record(source={**POSTGRES, "snapshot": "incremental"}),
        record(source={**POSTGRES, "snapshot": True}),
        record(source={**BASE, "connector": "vitess", "table": "customers"}),
    ],
)
def test_rows_of_a_snapshot_and_rows_without_a_place_go_by_their_origin(data: bytes) -> None:
    decoded = DEBEZIUM.decode(data)
    assert decoded.event_id is None
    assert event_of(decoded)["id"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "tombstone"),
        (b"null", "tombstone"),
        (b'{"schema":null,"payload":null}', "tombstone"),
        (b'{"ts_ms":1724764281364}', "heartbeat"),
        (wrapped(b'{"ts_ms":1724764281364}'), "heartbeat"),
        (b'{"status":"BEGIN","id":"571:53195829","ts_ms":1,"event_count":null,"data_collections":null}', "transaction"),
        (b'{"status":"END","id":"571","event_count":2,"data_collections":[],"ts_ms":1}', "transaction"),
        (b'{"source":{"connector":"mysql"},"ts_ms":1,"databaseName":"i","ddl":"DROP","tableChanges":[]}', "schema"),
    ],
)
def test_what_is_no_change_of_a_row_is_dropped_by_name(data: bytes, reason: str) -> None:
    names = {"transaction": "transaction_metadata", "schema": "schema_change"}
    assert DEBEZIUM.decode(data).drop == names.get(reason, reason)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[1]",
        b'{"id":1,"first_name":"Anne"}',
        record("x"),
        record("c", after="7"),
        record(source={}),
        record(source={**POSTGRES, "ts_ms": -1}),
        record(source={**POSTGRES, "ts_ms": 2**60}),
        b'{"op":"c","ts_ms":1}',
        b'{"payload":7}',
    ],
)
def test_what_is_no_envelope_is_poison(data: bytes) -> None:
    assert poison_of(data) == "bad_change"


def test_what_became_of_a_record_in_a_hub_is_read_back_by_its_tag() -> None:
    decoded = DEBEZIUM.decode(record())
    again = DEBEZIUM.decode(decoded.with_tag(encode_tag(TAG)))
    assert (again.tag, again.check()) == (TAG, decoded.check())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["op", "source", "before", "after", "payload", "ts_ms", "status", "id", "ddl", "message", "transaction"]


@given(
    st.binary(max_size=200)
    | st.builds(lambda cut: record("u", "{}")[:cut], st.integers(0, 600))
    | st.dictionaries(st.sampled_from(NAMES), json_values, max_size=6).map(lambda found: json.dumps(found).encode())
    | st.dictionaries(st.sampled_from(list(POSTGRES)), json_values, max_size=12).map(lambda s: record(source=s))
)
def test_nothing_but_poison_comes_of_other_bytes(data: bytes) -> None:
    with contextlib.suppress(PoisonEvent):
        assert isinstance(DEBEZIUM.decode(data), Decoded)
