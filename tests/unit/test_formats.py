"""Formats: bytes stay bytes, exactly one tag, and nothing but PoisonEvent for whatever arrives."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.formats import RESERVED_KEY, Decoded, Format, make_format, unwrap
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, encode_tag
from replicator.errors import PoisonEvent

ORIGIN = Origin(Region("us-east-1"), SourceName("orders"), "17", ShardId("shard-0"), SequenceNumber(7), 0)
FIRST = Tag(1, ORIGIN, EventId("e-1"), (Region("us-east-1"),), 5)
SECOND = Tag(1, ORIGIN, EventId("e-1"), (Region("us-east-1"), Region("eu-west-1")), 5)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

JSON = make_format("json")
CLOUD = make_format("cloudevents")
LAMBDA = make_format("lambda-stream")
WRAP = make_format("opaque", opaque="wrap")
ALL = [JSON, CLOUD, LAMBDA, WRAP, make_format("opaque")]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=6).filter(lambda key: key != RESERVED_KEY), VALUES, max_size=5)
STYLES: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"indent": 1},
    {"ensure_ascii": False, "separators": (" , ", " : ")},
]


def reason_of(event_format: Format, data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        event_format.decode(data)
    return caught.value.reason


def tagged(event_format: Format, data: bytes, tag: Tag) -> bytes:
    return event_format.decode(data).with_tag(encode_tag(tag))


@given(OBJECTS, st.sampled_from(STYLES), st.sampled_from([b"", b" ", b"\n\t"]))
def test_tagging_and_retagging_leaves_every_other_byte(
    event: dict[str, Any], style: dict[str, Any], lead: bytes
) -> None:
    data = lead + json.dumps(event, **style).encode("utf-8", "surrogatepass")
    try:
        plain = JSON.decode(data)
    except PoisonEvent:
        return
    once = plain.with_tag(encode_tag(FIRST))
    again = JSON.decode(once)
    twice = again.with_tag(encode_tag(SECOND))
    assert again.tag == FIRST
    assert JSON.decode(twice).tag == SECOND
    assert {key: value for key, value in json.loads(twice).items() if key != RESERVED_KEY} == event
    assert plain.check() == again.check() == JSON.decode(twice).check()
    assert twice.replace(encode_tag(SECOND), encode_tag(FIRST), 1) == once
    assert once.endswith(data.lstrip()[1:].lstrip() if event else b"}")


@given(OBJECTS, st.sampled_from(STYLES), st.integers(0, 5))
def test_a_tag_that_somebody_moved_is_found_and_replaced(event: dict[str, Any], style: dict[str, Any], at: int) -> None:
    items = list(event.items())
    items.insert(min(at, len(items)), (RESERVED_KEY, json.loads(encode_tag(FIRST))))
    data = json.dumps(dict(items), **style).encode("utf-8", "surrogatepass")
    try:
        decoded = JSON.decode(data)
    except PoisonEvent:
        return
    assert decoded.tag == FIRST
    moved_back = json.loads(decoded.with_tag(encode_tag(SECOND)))
    assert moved_back == {**event, RESERVED_KEY: json.loads(encode_tag(SECOND))}


def test_a_tag_hidden_by_an_escaped_key_is_a_tag_all_the_same() -> None:
    data = b'{"a":1,"\\u005freplicator":' + encode_tag(FIRST) + b"}"
    decoded = JSON.decode(data)
    assert decoded.tag == FIRST
    assert decoded.with_tag(b"7") == b'{"_replicator":7,"a":1}'


@pytest.mark.parametrize("key", [b'"_replicator"', b'"\\u005freplicator"'])
@pytest.mark.parametrize("second", [FIRST, SECOND])
def test_two_tags_are_poison_or_seen_through(key: bytes, second: Tag) -> None:
    data = b'{"_replicator":' + encode_tag(FIRST) + b"," + key + b":" + encode_tag(second) + b"}"
    if key == b'"_replicator"' or second != FIRST:
        assert reason_of(JSON, data) == "two_tags"
    else:
        relayed = JSON.decode(data).with_tag(encode_tag(SECOND))
        assert reason_of(JSON, relayed) == "two_tags"


def test_the_name_of_the_tag_deeper_down_is_just_data() -> None:
    data = b'{"note":"\\"_replicator\\":{}","deep":{"_replicator":1}}'
    once = tagged(JSON, data, FIRST)
    assert json.loads(tagged(JSON, once, SECOND))["deep"] == {"_replicator": 1}


@pytest.mark.parametrize(
    ("data", "event_id"),
    [
        (b'{"id":"a b"}', "a b"),
        (b'{"id":42}', "42"),
        (b'{"id":"\\u00e9"}', "é"),
        (b'{"id":null}', None),
        (b'{"id":""}', None),
        (b'{"id":1.5}', None),
        (b'{"id":{"x":1}}', None),
        (b"{}", None),
    ],
)
def test_an_id_is_a_string_or_an_integer_anything_else_is_none(data: bytes, event_id: str | None) -> None:
    assert JSON.decode(data).event_id == event_id


def test_the_trace_context_is_taken_when_it_is_one() -> None:
    assert JSON.decode(b'{"traceparent":"%s"}' % TRACE.encode()).trace == TRACE
    assert JSON.decode(b'{"traceparent":"00-00-00-01"}').trace is None
    assert JSON.decode(b'{"traceparent":[1]}').trace is None


@given(st.binary(max_size=120) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_event_or_poison(data: bytes) -> None:
    for event_format in ALL:
        for candidate in (data, b'{"_replicator":' + data, b'{"id":"1","type":"t","x":' + data + b"}"):
            try:
                decoded = event_format.decode(candidate)
            except PoisonEvent:
                continue
            assert isinstance(decoded, Decoded)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_json"),
        (b"[1]", "not_an_object"),
        (b"7", "not_an_object"),
        (b"{", "not_json"),
        (b'{"a":\xff}', "not_json"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"_replicator":{"v":1}}', "malformed_tag"),
        (b'{"_replicator":null}', "malformed_tag"),
        (b'{"_replicator":{"v":9}}', "unknown_tag_version"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str) -> None:
    assert reason_of(JSON, data) == reason


CLOUD_EVENT = b'{"specversion":"1.0","id":"1","source":"/shop","type":"t","data":{"a":1}}'


def test_a_cloudevent_stays_one_its_tag_is_a_string_attribute_and_its_identity_source_and_id() -> None:
    once = tagged(CLOUD, CLOUD_EVENT, FIRST)
    attribute = json.loads(once)["replicatortag"]
    assert isinstance(attribute, str)
    assert CLOUD.decode(once).tag == FIRST
    assert CLOUD.decode(tagged(CLOUD, once, SECOND)).tag == SECOND
    assert CLOUD.decode(once).event_id == "/shop 1"
    assert CLOUD.decode(once).check() == CLOUD.decode(CLOUD_EVENT).check()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CLOUD_EVENT.replace(b'"1.0"', b'"0.3"'), "bad_envelope"),
        (CLOUD_EVENT.replace(b'"id":"1",', b""), "bad_envelope"),
        (CLOUD_EVENT.replace(b"/shop", b""), "bad_envelope"),
        (CLOUD_EVENT.replace(b"}}", b'},"replicatortag":{}}'), "malformed_tag"),
        (CLOUD_EVENT.replace(b"}}", b'},"replicatortag":"!"}'), "malformed_tag"),
        (CLOUD_EVENT.replace(b"}}", '},"replicatortag":"é"}'.encode()), "malformed_tag"),
    ],
)
def test_a_broken_cloudevent_is_poison(data: bytes, reason: str) -> None:
    assert reason_of(CLOUD, data) == reason


def test_a_lambda_stream_event_gives_its_region_as_a_hint_only() -> None:
    data = b'{"id":"1","type":"order-created","timestamp":1,"partitionKey":"k","tags":{"region":"eu-west-1"}}'
    decoded = LAMBDA.decode(data)
    assert (decoded.event_id, decoded.tag, decoded.hint_region) == ("1", None, "eu-west-1")
    assert LAMBDA.decode(tagged(LAMBDA, data, FIRST)).tag == FIRST
    assert reason_of(LAMBDA, b'{"id":"1"}') == "bad_envelope"


@given(st.binary(max_size=80))
def test_opaque_bytes_travel_in_a_wrapper_and_come_out_as_they_were(data: bytes) -> None:
    once = tagged(WRAP, data, FIRST) if not data.startswith(b'{"_replicator":') else None
    if once is None:
        return
    twice = tagged(WRAP, once, SECOND)
    assert unwrap(once) == unwrap(twice) == data
    assert WRAP.decode(twice).tag == SECOND
    assert WRAP.decode(twice).check() == WRAP.decode(data).check()


def test_opaque_bytes_are_refused_unless_wrapping_is_chosen() -> None:
    assert reason_of(make_format("opaque"), b"\x00") == "opaque_refused"
