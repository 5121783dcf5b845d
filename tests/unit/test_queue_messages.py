"""What of an event SQS takes, and by what it is grouped and known again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.queue_messages import GROUP, body_of, group_of, repetition_of
from replicator.errors import Refused

ORIGIN = Origin(Region("us-east-1"), SourceName("orders"), "1", ShardId("s"), SequenceNumber(7))


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5))
def test_json_that_escapes_what_is_no_ascii_is_taken_as_it_is(event: dict[str, str]) -> None:
    data = json.dumps(event).encode()
    assert body_of(data).encode() == data


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", b'{"a":"\x00"}', "\uffff".encode(), b"\x0b"])
def test_what_no_message_can_hold_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="kind kinesis"):
        body_of(data)


@pytest.mark.parametrize("data", ["\t\n\r ~", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff", "käse"])
def test_the_edges_of_what_it_can_hold_are_taken(data: str) -> None:
    assert body_of(data.encode()) == data


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_group_is_one_key_and_one_that_sqs_takes(key: str, other: str) -> None:
    assert GROUP.fullmatch(group_of(key))
    assert (group_of(key) == group_of(other)) == (key == other)
    if GROUP.fullmatch(key):
        assert group_of(key) == key


def test_a_repetition_is_known_by_the_origin_whatever_else_differs() -> None:
    assert repetition_of(ORIGIN, b"a") == repetition_of(ORIGIN, b"b") != repetition_of(None, b"a")
    assert repetition_of(None, b"a") != repetition_of(None, b"b")
    assert len(repetition_of(ORIGIN, b"a")) <= 128
