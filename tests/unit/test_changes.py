"""Change records as events: what is told, what is not and why, and that no byte of it is made up."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.core.changes import ChangeFormat, ChangeRules
from replicator.core.formats import Decoded
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, encode_tag
from replicator.errors import PoisonEvent

HERE, THERE = Region("us-east-1"), Region("eu-west-1")
RULES = ChangeRules(here=HERE, table="orders")
STAMPED = replace(RULES, written_here="stamp")
BY_REGION = replace(RULES, written_here="attribute")
TAG = Tag(
    1, Origin(HERE, SourceName("orders-table"), "17", ShardId("shardId-1-a"), SequenceNumber(5)), EventId("x"), (), 5
)

Item = dict[str, Any] | None
VERBS = {(False, True): "INSERT", (True, True): "MODIFY", (True, False): "REMOVE"}


def text(value: str) -> dict[str, str]:
    return {"S": value}


def stamp(region: str, write_id: str, **attributes: Any) -> dict[str, Any]:
    return {"awsregion": text(region), "writeid": text(write_id), **attributes}


def record(old: Item, new: Item, *, sequence: str = "111", identity: Item = None) -> bytes:
    change: dict[str, Any] = {
        "eventID": "from-this-region-only",
        "eventName": VERBS[old is not None, new is not None],
        "eventVersion": "1.1",
        "awsRegion": HERE,
        "dynamodb": {
            "ApproximateCreationDateTime": 1479499740,
            "Keys": {"pk": text("order-1")},
            "SequenceNumber": sequence,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }
    change["dynamodb"] |= {} if old is None else {"OldImage": old}
    change["dynamodb"] |= {} if new is None else {"NewImage": new}
    return json.dumps(change | ({} if identity is None else {"userIdentity": identity})).encode()


def told(rules: ChangeRules, data: bytes) -> Decoded:
    return ChangeFormat(rules).decode(data)


def event_of(decoded: Decoded) -> Any:
    assert decoded.drop == ""
    event = json.loads(decoded.with_tag(b'"t"'))
    assert event.pop("_replicator") == "t"
    return event


def poison_of(rules: ChangeRules, data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        told(rules, data)
    return caught.value.reason


# --- the event -----------------------------------------------------------------------------------------------------


def test_a_new_item_is_told_in_the_envelope_of_aws_lambda_stream() -> None:
    decoded = told(RULES, record(None, {"pk": text("order-1"), "discriminator": text("order"), "total": {"N": "5.50"}}))
    assert b'"total":5.50' in decoded.tail
    event = event_of(decoded)
    assert decoded.event_id == event["id"]
    assert event == {
        "id": event["id"],
        "type": "order-created",
        "timestamp": 1479499740000,
        "tags": {"region": "us-east-1", "table": "orders"},
        "raw": {"new": {"pk": "order-1", "discriminator": "order", "total": 5.5}, "old": None},
    }


@pytest.mark.parametrize(
    ("old", "new", "verb"),
    [
        (None, {"deleted": {"BOOL": True}}, "created"),
        ({"a": text("1")}, {"a": text("2")}, "updated"),
        ({}, {"deleted": {"BOOL": True}}, "deleted"),
        ({"deleted": {"BOOL": True}}, {"deleted": {"BOOL": False}}, "undeleted"),
        ({"a": text("1")}, None, "deleted"),
    ],
)
def test_the_type_says_what_happened_to_the_entity(old: Item, new: Item, verb: str) -> None:
    assert event_of(told(RULES, record(old, new)))["type"] == f"orders-{verb}"
    assert event_of(told(replace(RULES, entity="thing"), record(old, new)))["type"] == f"thing-{verb}"


def test_every_type_of_attribute_becomes_plain_json() -> None:
    image = {
        "binary": {"B": "AAH/"},
        "list": {"L": [{"N": "1"}, {"NULL": True}, {"M": {"deep": {"BOOL": False}}}]},
        "number": {"N": "12345678901234567890123456789012345678"},
        "numbers": {"NS": ["3", "1E+20"]},
        "set": {"SS": ["b", "a"]},
    }
    decoded = told(RULES, record(None, image))
    assert b"12345678901234567890123456789012345678" in decoded.tail
    assert event_of(decoded)["raw"]["new"] == {
        "binary": "AAH/",
        "list": [1, None, {"deep": False}],
        "number": 12345678901234567890123456789012345678,
        "numbers": [1e20, 3],
        "set": ["a", "b"],
    }


def test_one_record_has_one_id_and_the_same_bytes_however_its_attributes_come() -> None:
    image = {"a": text("1"), "b": {"SS": ["x", "y"]}, "c": {"M": {"m": {"N": "1"}, "n": {"N": "2"}}}}
    other = {"c": {"M": {"n": {"N": "2"}, "m": {"N": "1"}}}, "b": {"SS": ["y", "x"]}, "a": text("1")}
    first, again = told(RULES, record(None, image)), told(RULES, record(None, other))
    assert (first.event_id, first.check(), first.tail) == (again.event_id, again.check(), again.tail)
    assert told(RULES, record(None, image, sequence="112")).event_id != first.event_id
    assert told(replace(RULES, here=THERE), record(None, image)).event_id != first.event_id
    assert first.event_id != "from-this-region-only"


def test_what_became_of_a_change_in_a_hub_is_read_back_by_its_tag() -> None:
    decoded = told(RULES, record(None, {"a": text("1")}))
    again = told(RULES, decoded.with_tag(encode_tag(TAG)))
    assert again.tag == TAG
    assert again.check() == decoded.check()


# --- outbox and raw ------------------------------------------------------------------------------------------------

OUTBOX = replace(RULES, mode="outbox")


def test_an_outbox_item_carries_the_event_as_text_or_as_a_map() -> None:
    as_text = told(OUTBOX, record(None, {"event": text('{"id": "e-1",  "type": "paid"}')}))
    assert as_text.event_id == "e-1"
    assert as_text.tail == b',"id": "e-1",  "type": "paid"}'
    as_map = told(OUTBOX, record(None, {"event": {"M": {"id": text("e-1"), "total": {"N": "7"}}}}))
    assert event_of(as_map) == {"id": "e-1", "total": 7}
    assert told(OUTBOX, record(None, {"event": text("{}")})).event_id


def test_only_a_new_outbox_item_is_an_event() -> None:
    item = {"event": text('{"id":"e-1"}')}
    assert told(OUTBOX, record(item, item | {"sent": {"BOOL": True}})).drop == "outbox_change"
    assert told(OUTBOX, record(item, None)).drop == "outbox_change"


def test_an_outbox_item_without_an_event_is_poison() -> None:
    assert poison_of(OUTBOX, record(None, {"event": {"N": "1"}})) == "no_outbox_event"
    assert poison_of(OUTBOX, record(None, {})) == "no_outbox_event"
    assert poison_of(OUTBOX, record(None, {"event": text("paid")})) == "not_json"
    tagged = b'{"_replicator":' + encode_tag(TAG) + b"}"
    assert poison_of(OUTBOX, record(None, {"event": text(tagged.decode())})) == "no_outbox_event"


def test_raw_passes_the_record_on_as_it_is() -> None:
    data = record({"a": text("1")}, {"a": text("2")})
    decoded = told(replace(RULES, mode="raw"), data)
    assert event_of(decoded) == json.loads(data)
    assert decoded.event_id == told(RULES, data).event_id


# --- what is not told ----------------------------------------------------------------------------------------------


def test_a_change_of_nothing_but_replications_own_attributes_is_not_told() -> None:
    item = {"a": text("1")}
    marked = item | {"aws:rep:updateregion": text(HERE), "aws:rep:updatetime": {"N": "1"}}
    assert told(RULES, record(item, marked)).drop == "metadata_only"
    assert told(RULES, record(item, marked | {"a": text("2")})).drop == ""


def test_a_latched_item_is_not_told() -> None:
    assert told(RULES, record(None, {"latched": {"BOOL": True}})).drop == "latched"
    assert told(RULES, record(None, {"latched": {"BOOL": False}})).drop == ""
    assert told(RULES, record({"latched": {"BOOL": True}}, None)).drop == ""


@pytest.mark.parametrize("capital", [True, False])
def test_a_deletion_by_time_to_live_has_both_marks(capital: bool) -> None:
    names = ("Type", "PrincipalId") if capital else ("type", "principalId")
    both = dict(zip(names, ("Service", "dynamodb.amazonaws.com"), strict=True))
    ignoring = replace(RULES, ttl_deletes="ignore")
    assert told(ignoring, record({"a": text("1")}, None, identity=both)).drop == "ttl_delete"
    assert told(RULES, record({"a": text("1")}, None, identity=both)).drop == ""
    for name in names:
        half = {key: value for key, value in both.items() if key != name}
        assert told(ignoring, record({"a": text("1")}, None, identity=half)).drop == ""


@pytest.mark.parametrize(
    ("old", "new", "is_told"),
    [
        (None, stamp(HERE, "1"), True),
        (None, stamp(THERE, "1"), False),
        (None, {"a": text("1")}, True),
        (stamp(HERE, "1"), stamp(THERE, "2"), False),
        (stamp(THERE, "1"), stamp(HERE, "2"), True),
        (stamp(THERE, "1"), stamp(THERE, "2"), False),
        (stamp(THERE, "1"), stamp(THERE, "1", a=text("1")), True),
        (stamp(HERE, "1"), None, True),
        (stamp(THERE, "1"), None, False),
    ],
)
def test_a_stamp_that_changed_names_the_region_and_one_that_did_not_was_written_here(
    old: Item, new: Item, is_told: bool
) -> None:
    assert told(STAMPED, record(old, new)).drop == ("" if is_told else "written_elsewhere")


@pytest.mark.parametrize("rules", [STAMPED, BY_REGION])
def test_hard_deletes_are_the_last_writers_or_all_local(rules: ChangeRules) -> None:
    data = record(stamp(THERE, "1"), None)
    assert told(rules, data).drop == "written_elsewhere"
    assert told(replace(rules, hard_deletes="local"), data).drop == ""


def test_by_attribute_the_new_image_tells_and_silence_is_poison() -> None:
    assert told(BY_REGION, record(stamp(THERE, "1"), stamp(HERE, "1", a=text("1")))).drop == ""
    assert told(BY_REGION, record(stamp(HERE, "1"), stamp(THERE, "1", a=text("1")))).drop == "written_elsewhere"
    assert poison_of(BY_REGION, record(None, {"a": text("1")})) == "no_writer_region"
    legacy = replace(BY_REGION, region_attribute="aws:rep:updateregion")
    assert told(legacy, record(None, {"aws:rep:updateregion": text(THERE)})).drop == "written_elsewhere"


def test_each_change_of_a_global_table_is_told_by_exactly_one_region() -> None:
    changes = [
        (None, stamp(HERE, "1")),
        (stamp(HERE, "1"), stamp(THERE, "2")),
        (stamp(THERE, "2"), stamp(THERE, "3")),
        (stamp(THERE, "3"), None),
    ]
    for old, new in changes:
        drops = [told(replace(STAMPED, here=region), record(old, new)).drop for region in (HERE, THERE)]
        assert sorted(drops) == ["", "written_elsewhere"]


# --- whatever the bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [{"a": {"X": "1"}}, {"a": {"N": "1,5"}}, {"a": {"N": "NaN"}}, {"a": {}}, {"a": {"S": 1}}, {"a": {"M": {"b": 1}}}],
)
def test_what_is_no_attribute_is_poison(image: Item) -> None:
    assert poison_of(RULES, record(None, image)) == "bad_change"


@given(st.binary(max_size=200) | st.builds(lambda cut: record({}, {"a": text("1")})[:cut], st.integers(0, 300)))
def test_nothing_but_poison_comes_of_other_bytes(data: bytes) -> None:
    for rules in (RULES, OUTBOX, replace(RULES, mode="raw")):
        with contextlib.suppress(PoisonEvent):
            told(rules, data)
