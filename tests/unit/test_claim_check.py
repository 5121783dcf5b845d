"""Claim checks of events: the pointer is an event of its format, and the body is what the producer wrote."""

import json
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from replicator.claim_check import DamagedBody, Pointer, pointer_of, verified
from replicator.core.bus_entries import BusEntries
from replicator.core.claim_check import Cloakroom
from replicator.core.egress import Egress, EgressRules, Residency
from replicator.core.formats import FormatName, make_format
from replicator.core.kpl import UserRecord, pack
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, TagKeys, encode_tag
from replicator.errors import PoisonEvent

WEST = Region("eu-west-1")
ORIGIN = Origin(Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(7), 2)
KEYS = TagKeys("k1", {"k1": b"0123456789abcdef"})
TAG = KEYS.sign(Tag(1, ORIGIN, EventId("e-1"), (Region("us-east-1"),), 5))
STAYS = Residency(["us-*"], ["card"])
ROOM = Cloakroom(WEST, "west-bodies", "claims/", EgressRules({"who.email": "mark", "a,b": "mark"}, [STAYS]))
BIG = "x" * 5000

EVENTS: list[tuple[FormatName, bytes]] = [
    ("json", b'{"id":"e-1","type":"t","n":1.50,"body":"%b","tail":[]}' % BIG.encode()),
    ("json", b'{ "id" : "e-1", "body" : "%b" }' % BIG.encode()),
    ("json", b'{"body":"%b","s3":{"bucket":"other"},"id":"e-1"}' % BIG.encode()),
    ("cloudevents", b'{"specversion":"1.0","id":"e-1","source":"/s","type":"t","data":{"a":"%b"}}' % BIG.encode()),
    ("lambda-stream", b'{"id":"e-1","type":"t","tags":{"region":"us-east-1"},"thing":{"a":"%b"}}' % BIG.encode()),
    ("json", b'{"id":"e-1","detail-type":"t","source":"shop","detail":{"a":"%b"},"resources":["r"]}' % BIG.encode()),
]
IDS = ["json", "spaced", "own s3", "cloudevents", "lambda-stream", "bus"]


def tagged(kind: FormatName, event: bytes, tag: Tag = TAG) -> bytes:
    return make_format(kind).decode(event).with_tag(encode_tag(tag))


@pytest.mark.parametrize(("kind", "event"), EVENTS, ids=IDS)
def test_a_pointer_is_the_event_without_what_is_large(kind: FormatName, event: bytes) -> None:
    checked = ROOM.check_in(tagged(kind, event), ORIGIN)
    decoded = make_format(kind).decode(checked.pointer)
    assert decoded.tag == TAG
    KEYS.verify(decoded.tag)
    assert json.loads(checked.pointer)["id"] == "e-1"
    assert len(checked.pointer) < 1500
    assert checked.body == event
    pointer = pointer_of(checked.pointer)
    digest = sha256(event).hexdigest()
    assert pointer == Pointer(
        "west-bodies", checked.name, "eu-west-1", digest, len(event), ("a,b", "who.email"), ("card",)
    )
    assert verified(pointer, checked.body) == event
    small = {name: value for name, value in json.loads(event).items() if len(json.dumps(value)) < 1000}
    small = {name: value for name, value in small.items() if name != "s3"}
    assert small.items() <= json.loads(checked.pointer).items()


@pytest.mark.parametrize(("kind", "event"), EVENTS, ids=IDS)
def test_a_relay_with_the_same_rules_or_fewer_lets_a_pointer_go(kind: FormatName, event: bytes) -> None:
    pointer = ROOM.check_in(tagged(kind, event), ORIGIN).pointer
    for rules in (ROOM.rules, EgressRules({"who.email": "mark"}), EgressRules({}, [STAYS])):
        assert Egress(rules).leaving(pointer, ORIGIN.region) is pointer
    for rules in (EgressRules({"who.name": "mark"}), EgressRules({}, [Residency(["us-*"], ["card", "who.email"])])):
        with pytest.raises(PoisonEvent):
            Egress(rules).leaving(pointer, ORIGIN.region)


def test_of_an_event_that_residency_did_not_speak_of_nothing_is_said() -> None:
    born_elsewhere = replace(ORIGIN, region=Region("sa-east-1"))
    pointer = pointer_of(ROOM.check_in(tagged(*EVENTS[0]), born_elsewhere).pointer)
    assert pointer is not None
    assert pointer.absent == ()


@pytest.mark.parametrize(("kind", "event"), EVENTS, ids=IDS)
def test_checked_in_again_it_is_the_same_object_and_other_bytes_are_another(kind: FormatName, event: bytes) -> None:
    """Under a name is always the same, though the tag of a repetition says another time."""
    first = ROOM.check_in(tagged(kind, event), ORIGIN)
    again = ROOM.check_in(tagged(kind, event, KEYS.sign(replace(TAG, replicated_ms=6))), ORIGIN)
    assert (again.name, again.body) == (first.name, first.body)
    assert again.pointer != first.pointer
    other = ROOM.check_in(tagged(kind, event.replace(b"xx", b"xy", 1)), ORIGIN)
    assert other.name != first.name
    assert first.name.startswith("claims/us-east-1/orders/17/shardId-0/7/2-")


def test_cloud_events_have_attributes_of_simple_types() -> None:
    kind, event = EVENTS[3]
    found: dict[str, Any] = json.loads(ROOM.check_in(tagged(kind, event), ORIGIN).pointer)
    assert "data" not in found
    assert all(name.isalnum() and name.islower() for name in found)
    assert all(isinstance(value, str | int) for value in found.values())


def test_what_a_bus_keeps_of_an_event_says_where_the_body_is() -> None:
    kind, event = EVENTS[5]
    entry = BusEntries("replicator", None).entry(ROOM.check_in(tagged(kind, event), ORIGIN).pointer)
    assert (entry.source, entry.detail_type, entry.resources) == ("shop", "t", ("r",))
    assert pointer_of(b'{"detail":' + entry.detail + b"}") == pointer_of(entry.detail)
    assert "_replicator" in json.loads(entry.detail)


def test_what_aws_lambda_stream_checked_in_is_found_too() -> None:
    pointer = pointer_of(b'{"id":"1","type":"t","s3":{"bucket":"b","key":"k"}}')
    assert pointer == Pointer("b", "k")
    assert verified(pointer, b"anything") == b"anything"


@pytest.mark.parametrize("event", [b"", b"{}", b"[]", b'{"s3":1}', b'{"s3":{"bucket":"b"}}', b'{"detail":{"s3":[]}}'])
def test_what_is_whole_has_no_pointer(event: bytes) -> None:
    assert pointer_of(event) is None


def test_a_body_that_is_another_is_told() -> None:
    with pytest.raises(DamagedBody, match="s3://b/k has 3 bytes"):
        verified(Pointer("b", "k", sha256=sha256(b"old").hexdigest()), b"new")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id":"1"}', pack([UserRecord(tagged(*EVENTS[0]), "k")] * 2), b"\xff"])
def test_what_is_no_event_with_a_tag_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ROOM.check_in(data, ORIGIN)
