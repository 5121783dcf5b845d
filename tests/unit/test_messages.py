"""Messages of a queue as events: their bytes, the id they go by, and what is not taken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_home import TABLE, preparer_of

from replicator.core.formats import Decoded
from replicator.core.messages import MessageFormat, text_at
from replicator.core.model import Record
from replicator.core.routing import Drop, HomeRouter
from replicator.errors import PoisonEvent
from replicator.ports import Page

PLAIN = MessageFormat("none", ["id"])
BUS = MessageFormat("eventbridge", ["detail", "id"])
TAG = {"v": 1, "gen": 1, "origin": ["us-east-1", "q", "1", "queue", "5", 0], "id": "e", "path": ["us-east-1"], "at": 1}


def bus_event(**detail: Any) -> bytes:
    event = {"version": "0", "id": "eb-1", "detail-type": "paid", "source": "shop", "account": "1", "detail": detail}
    return json.dumps(event).encode()


def reason_of(event_format: MessageFormat, data: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        event_format.decode(data)
    return caught.value.reason


def test_a_message_goes_on_byte_for_byte_under_the_producers_id() -> None:
    data = b'{ "id": "e-1",  "n": 1.50 }'
    decoded = PLAIN.decode(data)
    assert (decoded.event_id, decoded.drop) == ("e-1", "")
    assert decoded.with_tag(b"{}").endswith(b'"id": "e-1",  "n": 1.50 }')
    assert PLAIN.decode(b'{"n":1}').event_id is None


def test_an_event_of_a_bus_goes_by_the_id_in_its_detail_never_by_that_of_the_bus() -> None:
    decoded = BUS.decode(bus_event(id="e-1", total=1))
    assert decoded.event_id == "e-1"
    assert BUS.decode(bus_event(total=1)).event_id is None
    assert MessageFormat("eventbridge", ["detail", "order", "number"]).decode(
        bus_event(order={"number": 7})
    ).event_id == ("7")


@pytest.mark.parametrize("data", [b'{"id":"e-1"}', b'{"id":"1","detail-type":"t","source":"s","detail":7}'])
def test_what_is_no_event_of_a_bus_is_poison(data: bytes) -> None:
    assert reason_of(BUS, data) == "bad_envelope"


@pytest.mark.parametrize("data", [b"paid", b"[1]", b"\xff"])
def test_what_is_no_object_is_poison(data: bytes) -> None:
    assert reason_of(PLAIN, data) in {"not_json", "not_an_object"}


@pytest.mark.parametrize("path", [["us-east-1"], []])
def test_what_bears_a_tag_does_not_enter_the_hub_again(path: list[str]) -> None:
    tag = {**TAG, "path": path}
    assert drop_of(PLAIN, json.dumps({"_replicator": tag, "id": "e"}).encode()) == "replica"
    assert drop_of(PLAIN, json.dumps({"id": "e", "_replicator": tag}).encode()) == "replica"
    assert drop_of(BUS, bus_event(id="e", _replicator=tag)) == "replica"
    assert drop_of(PLAIN, json.dumps({"id": "e", "replicatortag": "e30"}).encode()) == "replica"
    assert drop_of(BUS, bus_event(id="e", replicatortag="e30")) == "replica"


def drop_of(event_format: MessageFormat, data: bytes) -> str:
    preparer = preparer_of(TABLE, event_format)
    [prepared] = preparer.prepare(Page((Record(data, "k", "7", 4321),), None, 0))
    assert prepared.route is not None
    decision = HomeRouter().decide(prepared.route)
    assert isinstance(decision, Drop)
    return decision.reason


def test_what_lasts_of_a_message_is_the_sequence_of_its_origin() -> None:
    preparer = preparer_of(TABLE, PLAIN)
    numbers = ["7", "8"]
    origins = [
        preparer.prepare(Page((Record(b'{"n":1}', "k", number, 4321, 0, "99"),), None, 0))[0].origin
        for number in numbers
    ]
    assert [origin.sequence for origin in origins] == [99, 99]


@given(st.binary(max_size=100), st.lists(st.text(max_size=3), max_size=3))
def test_any_bytes_have_a_text_at_a_path_or_none(data: bytes, path: list[str]) -> None:
    found = text_at(data, path)
    assert found is None or isinstance(found, str)
    for event_format in (PLAIN, BUS):
        try:
            assert isinstance(event_format.decode(data), Decoded)
        except PoisonEvent:
            continue
