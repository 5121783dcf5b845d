"""Records of Kinesis Data Streams for DynamoDB: the rules of tables, one event of a repeat, late ones show."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_changes import HERE, THERE, VERBS, Item, event_of, stamp, text
from test_home import TABLE, prepared_by, preparer_of

from replicator.core.cdc_dynamodb import StreamedChangeFormat
from replicator.core.changes import ChangeRules
from replicator.core.formats import Decoded
from replicator.errors import PoisonEvent

RULES = ChangeRules(here=HERE, table="")
AT_US = 1479499740123456


def record(old: Item, new: Item, *, at: float = AT_US, precision: str = "MICROSECOND", **changed: Any) -> bytes:
    """As the DynamoDB Developer Guide shows it."""
    change: dict[str, Any] = {
        "awsRegion": HERE,
        "eventID": "b1f5-4c",
        "eventName": VERBS[old is not None, new is not None],
        "userIdentity": None,
        "recordFormat": "application/json",
        "tableName": "orders",
        "dynamodb": {
            "ApproximateCreationDateTime": at,
            "Keys": {"pk": text("order-1")},
            "SizeBytes": 67,
            "ApproximateCreationDateTimePrecision": precision,
        },
        "eventSource": "aws:dynamodb",
    }
    change["dynamodb"] |= {} if old is None else {"OldImage": old}
    change["dynamodb"] |= {} if new is None else {"NewImage": new}
    return json.dumps(change | changed).encode()


def told(data: bytes, rules: ChangeRules = RULES) -> Decoded:
    return StreamedChangeFormat(rules).decode(data)


def poison_of(data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        told(data)
    return caught.value.reason


def test_a_change_is_told_with_the_table_of_its_record_and_its_time_in_microseconds() -> None:
    decoded = told(record({"pk": text("order-1"), "n": {"N": "1"}}, {"pk": text("order-1"), "n": {"N": "2.50"}}))
    assert b'"n":2.50' in decoded.tail
    event = event_of(decoded)
    assert event == {
        "id": decoded.event_id,
        "type": "orders-updated",
        "timestamp": AT_US // 1000,
        "tags": {"region": HERE, "table": "orders"},
        "raw": {"new": {"pk": "order-1", "n": 2.5}, "old": {"pk": "order-1", "n": 1}, "at_us": AT_US},
    }


@pytest.mark.parametrize(
    ("at", "precision", "at_us"),
    [(AT_US, "MICROSECOND", AT_US), (1479499740123, "MILLISECOND", 1479499740123000)],
)
def test_the_time_is_in_the_unit_that_the_record_names(at: int, precision: str, at_us: int) -> None:
    event = event_of(told(record(None, {}, at=at, precision=precision)))
    assert (event["raw"]["at_us"], event["timestamp"]) == (at_us, at_us // 1000)


def test_without_a_unit_the_time_is_in_milliseconds_and_an_unknown_one_is_poison() -> None:
    without = record(None, {}, at=5).replace(b', "ApproximateCreationDateTimePrecision": "MICROSECOND"', b"")
    assert event_of(told(without))["raw"]["at_us"] == 5000
    assert poison_of(record(None, {}, precision="NANOSECOND")) == "bad_change"


attributes = st.dictionaries(
    st.text(max_size=4),
    st.builds(text, st.text(max_size=5)) | st.from_regex(r"-?[1-9][0-9]{0,37}", fullmatch=True).map(lambda n: {"N": n}),
    max_size=4,
)


@given(attributes, attributes, st.randoms())
def test_a_repeat_gives_the_same_claim_whatever_its_order_and_event_id(old: Any, new: Any, rng: Any) -> None:
    def shuffled(image: dict[str, Any]) -> dict[str, Any]:
        return dict(rng.sample(sorted(image.items()), len(image)))

    preparer = preparer_of(TABLE, StreamedChangeFormat(RULES))
    first = prepared_by(preparer, record(old, new))
    again = prepared_by(preparer, record(shuffled(old), shuffled(new), eventID="another"))
    assert first.poison is None
    assert (first.claim, first.route) == (again.claim, again.route)


@given(st.from_regex(r"-?[1-9][0-9]{0,37}(\.[0-9]{1,30})?", fullmatch=True))
def test_numbers_keep_all_their_digits(number: str) -> None:
    assert f'"n":{number}'.encode() in told(record(None, {"n": {"N": number}})).tail


def test_another_time_table_key_image_or_region_is_another_event() -> None:
    item = {"a": text("1")}
    keyed = json.loads(record(None, item))
    keyed["dynamodb"]["Keys"] = {"pk": text("order-2")}
    ids = [
        told(record(None, item)).event_id,
        told(record(None, item, at=AT_US + 1)).event_id,
        told(record(None, item, tableName="others")).event_id,
        told(json.dumps(keyed).encode()).event_id,
        told(record(None, {"a": text("2")})).event_id,
        told(record({}, item)).event_id,
        told(record(None, item), replace(RULES, here=THERE)).event_id,
    ]
    assert len(set(ids)) == len(ids)


def test_a_late_change_is_told_and_can_be_told_from_the_newer_one_by_its_time() -> None:
    newer, late = told(record({}, {"n": {"N": "2"}})), told(record({}, {"n": {"N": "1"}}, at=AT_US - 1))
    assert event_of(newer)["raw"]["at_us"] > event_of(late)["raw"]["at_us"]
    assert event_of(newer)["timestamp"] == event_of(late)["timestamp"], "milliseconds alone would not do"


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=4))
def test_who_passes_over_what_is_older_has_the_newest_state_whatever_the_order(
    order: list[int], again: list[int]
) -> None:
    at_us, state = -1, None
    for number in [*order, *again]:
        raw = event_of(told(record({}, {"n": {"N": str(number)}}, at=AT_US + number)))["raw"]
        if raw["at_us"] > at_us:
            at_us, state = raw["at_us"], raw["new"]
    assert state == {"n": 5}


def test_the_rules_of_tables_hold() -> None:
    assert told(record({"a": text("1")}, {"a": text("1")})).drop == "metadata_only"
    stamped = replace(RULES, written_here="stamp")
    assert told(record(None, stamp(THERE, "1")), stamped).drop == "written_elsewhere"
    by_ttl = record({"a": text("1")}, None, userIdentity={"principalId": "dynamodb.amazonaws.com", "type": "Service"})
    assert told(by_ttl, replace(RULES, ttl_deletes="ignore")).drop == "ttl_delete"
    outbox = told(record(None, {"event": text('{"id":"e-1"}')}), replace(RULES, mode="outbox"))
    assert outbox.event_id == "e-1"
    raw = record(None, {"a": text("1")})
    assert event_of(told(raw, replace(RULES, mode="raw"))) == json.loads(raw)


@pytest.mark.parametrize("at", [-1, 1e300, 2**60])
def test_a_time_out_of_any_range_is_poison(at: float) -> None:
    assert poison_of(record(None, {}, at=at)) == "bad_change"


@given(st.binary(max_size=200) | st.builds(lambda cut: record({}, {"a": text("1")})[:cut], st.integers(0, 400)))
def test_nothing_but_poison_comes_of_other_bytes(data: bytes) -> None:
    for mode in ("image", "outbox", "raw"):
        with contextlib.suppress(PoisonEvent):
            told(data, replace(RULES, mode=mode))


@pytest.mark.parametrize("depth", range(400, 520, 5))
def test_nothing_but_poison_comes_of_an_item_nested_beyond_reason(depth: int) -> None:
    deep = b'{"M":{"a":' * depth + b'{"S":"x"}' + b"}}" * depth
    with contextlib.suppress(PoisonEvent):
        told(record(None, {"a": text("1")}).replace(b'{"S": "1"}', deep))
