"""Events as entries of a bus: whose source and type they bear, where their tag goes, and what no bus takes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.bus_entries import BusEntries, BusEntry
from replicator.core.json_members import members
from replicator.core.messages import MessageFormat
from replicator.errors import Refused

ENTRIES = BusEntries("replicator", None)
TAG = {"v": 1, "gen": 1, "origin": ["us-east-1", "q", "1", "queue", "5", 0], "id": "e", "path": ["us-east-1"], "at": 1}
TAG_JSON = json.dumps(TAG, separators=(",", ":")).encode()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
details = st.dictionaries(texts.filter(lambda key: key not in {"_replicator", "replicatortag"}), values, max_size=5)
layouts = st.sampled_from([{"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}, {}])


def in_envelope(detail: bytes, **more: Any) -> bytes:
    """As a bus's event stands in a hub, with its tag in front."""
    rest = {"version": "0", "id": "eb-1", "detail-type": "paid", "source": "shop", "account": "1", **more}
    return b'{"_replicator":' + TAG_JSON + b"," + json.dumps(rest).encode()[1:-1] + b',"detail":' + detail + b"}"


def tagged(**event: Any) -> bytes:
    return json.dumps({"_replicator": TAG, **event}).encode()


def refusal_of(data: bytes, entries: BusEntries = ENTRIES) -> str:
    with pytest.raises(Refused) as caught:
        entries.entry(data)
    return str(caught.value)


# --- events that came from a bus -----------------------------------------------------------------------------------


@given(details, layouts)
def test_a_detail_keeps_its_bytes_and_gets_the_tag_as_its_first_member_and_no_other(
    detail: dict[str, Any], layout: dict[str, Any]
) -> None:
    data = json.dumps(detail, **layout).encode()
    put = ENTRIES.entry(in_envelope(data)).detail
    [first, *rest] = members(put)
    assert (first.key, put[first.value_start : first.end]) == ("_replicator", TAG_JSON)
    assert "_replicator" not in [member.key for member in rest]
    assert json.loads(put) == {"_replicator": TAG, **detail}
    without = put.replace(b'"_replicator":' + TAG_JSON, b"", 1)
    assert without in (data, data.replace(b"{", b"{,", 1))


@given(details)
def test_what_a_bus_hands_on_of_it_is_known_as_a_replica(detail: dict[str, Any]) -> None:
    entry = ENTRIES.entry(in_envelope(json.dumps(detail).encode()))
    handed_on = {
        "id": "x",
        "detail-type": entry.detail_type,
        "source": entry.source,
        "detail": json.loads(entry.detail),
    }
    assert MessageFormat("eventbridge", ["detail", "id"]).decode(json.dumps(handed_on).encode()).drop == "replica"


def test_source_type_time_and_resources_are_those_it_had() -> None:
    data = in_envelope(b'{"n":1}', time="2015-12-22T18:43:48Z", resources=["arn:a", "ärn"])
    entry = ENTRIES.entry(data)
    assert entry == BusEntry(
        "shop", "paid", b'{"_replicator":' + TAG_JSON + b',"n":1}', 1_450_809_828.0, ("arn:a", "ärn")
    )
    assert entry.size_bytes == 14 + 4 + 4 + len(entry.detail) + 5 + 4
    odd = ENTRIES.entry(in_envelope(b"{}", time="soon", resources=[1]))
    assert (odd.time_s, odd.resources, odd.size_bytes) == (None, (), 8 + len(odd.detail))


@pytest.mark.parametrize("inner", [TAG_JSON, b"7"])
def test_a_detail_with_a_tag_of_its_own_is_refused(inner: bytes) -> None:
    for data in (b'{"_replicator":' + inner + b"}", b'{"n":1,"_replic\\u0061tor":' + inner + b"}"):
        assert "remove it" in refusal_of(in_envelope(data))


def test_events_of_aws_itself_are_refused_with_what_to_do() -> None:
    assert "'exclude' on the link" in refusal_of(in_envelope(b"{}", source="aws.s3"))


# --- all others ----------------------------------------------------------------------------------------------------


@given(details, layouts)
def test_any_other_event_is_the_detail_byte_for_byte(detail: dict[str, Any], layout: dict[str, Any]) -> None:
    data = json.dumps({"_replicator": TAG, **detail, "type": "order-paid"}, **layout).encode()
    entry = ENTRIES.entry(data)
    assert (entry.source, entry.detail_type, entry.detail) == ("replicator", "order-paid", data)


def test_the_type_is_the_events_own_or_that_of_the_sink() -> None:
    named = BusEntries("shop", "event")
    assert named.entry(tagged(type="paid")).detail_type == "paid"
    assert named.entry(tagged(n=1)).detail_type == "event"
    assert "'detail_type' of the sink" in refusal_of(tagged(n=1))
    assert "'detail_type' of the sink" in refusal_of(tagged(type=7))
    assert "a bus takes 1 to 128" in refusal_of(tagged(type="t" * 129))
    assert "a bus takes 1 to 128" in refusal_of(tagged(type="", n=1), BusEntries("shop", ""))


@pytest.mark.parametrize(
    "missing", [{"source": 7}, {"detail-type": None}, {"detail": "text"}, {"_replicator": None, "detail": [1]}]
)
def test_what_only_looks_like_an_envelope_is_an_event_like_any_other(missing: dict[str, Any]) -> None:
    event = {"source": "shop", "detail-type": "paid", "detail": {}, "type": "t", **missing}
    data = tagged(**event)
    assert ENTRIES.entry(data).detail == data


@pytest.mark.parametrize("data", [b"paid", b"[1]", b"\xff", b'{"type":"t","x":"\xff"}', b"", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    assert "kind kinesis" in refusal_of(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    try:
        assert isinstance(ENTRIES.entry(data), BusEntry)
    except Refused:
        return


# --- traces --------------------------------------------------------------------------------------------------------

W3C = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
XRAY = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled="


@pytest.mark.parametrize(
    ("given_trace", "trace"),
    [
        (W3C + "1", XRAY + "1"),
        (W3C + "0", XRAY + "0"),
        (W3C + "3", XRAY + "1"),
        (XRAY + "1", XRAY + "1"),
        ("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736", "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736"),
        ("Root=1-no", None),
        (7, None),
    ],
)
def test_a_trace_goes_along_in_the_words_of_xray(given_trace: object, trace: str | None) -> None:
    assert ENTRIES.entry(tagged(type="t", traceparent=given_trace)).trace == trace
    detail = json.dumps({"traceparent": given_trace}).encode()
    assert ENTRIES.entry(in_envelope(detail)).trace == trace
