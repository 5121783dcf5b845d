"""The bodies we write are those of botocore's serializer, without its blanks and escapes.

botocore writes a blank behind each comma and colon, and ASCII only. Ours is the compact UTF-8 of that JSON, byte for
byte: fewer bytes to hash, encrypt and pay for between regions, and nothing in them that botocore would not say.
"""

import asyncio
import json
from datetime import UTC, datetime
from hashlib import sha256

import botocore.session
import pytest
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.kinesis_sink import Bodies, KinesisSink
from replicator.aws.kinesis_api import GET_RECORDS_MAX, KinesisApi
from replicator.aws.transport import Reply
from replicator.core.model import After, AtTimestamp, Position, SequenceNumber, ShardId, TrimHorizon
from replicator.ports import Entry

SERVICE = botocore.session.Session().get_service_model("kinesis")
SERIALIZER = create_serializer("json", include_validation=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
STREAMS = st.from_regex(r"[a-zA-Z0-9_.-]{1,128}", fullmatch=True)
SHARDS = st.from_regex(r"shardId-[0-9]{12}", fullmatch=True).map(ShardId)
ENTRIES = st.builds(Entry, st.binary(max_size=200), TEXT)


def by_botocore(operation: str, **request: object) -> bytes:
    """Its body, rewritten compact."""
    theirs = SERIALIZER.serialize_to_request(request, SERVICE.operation_model(operation))["body"]
    return json.dumps(json.loads(theirs), separators=(",", ":"), ensure_ascii=False).encode()


class NoApi(KinesisApi):
    """A stream's name, and no way to call it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream


class Answers:
    """As much of `JsonApi` as is used: keeps what is sent, and says what it is told to."""

    def __init__(self, *bodies: str) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self._bodies = list(bodies)

    async def call(self, operation: str, body: bytes, **_: object) -> Reply:
        self.sent.append((operation, body))
        return Reply(self._bodies.pop(0).encode(), None, 0.0, 0.0)


def api_to(answers: Answers, stream: str) -> KinesisApi:
    return KinesisApi(answers, stream, 5.0)  # type: ignore[arg-type]  # as much as is used


@given(STREAMS, st.lists(ENTRIES, min_size=1, max_size=20))
def test_a_put_body_is_botocores(stream: str, entries: list[Entry]) -> None:
    records = [{"Data": entry.data, "PartitionKey": entry.partition_key} for entry in entries]
    sink = KinesisSink(NoApi(stream))
    ours, digest = sink._bodies.of(sink._head, entries)
    assert ours == by_botocore("PutRecords", StreamName=stream, Records=records)
    assert digest == sha256(ours).hexdigest()


@given(STREAMS, TEXT, st.integers(1, GET_RECORDS_MAX))
def test_a_body_that_gets_records_is_botocores(stream: str, token: str, limit: int) -> None:
    answers = Answers('{"Records":[]}')
    asyncio.run(api_to(answers, stream).get_records(token, limit))
    assert answers.sent == [("GetRecords", by_botocore("GetRecords", ShardIterator=token, Limit=limit))]


@given(STREAMS, TEXT)
def test_bodies_that_list_shards_page_by_page_are_botocores(stream: str, token: str) -> None:
    answers = Answers(json.dumps({"Shards": [], "NextToken": token}), '{"Shards":[]}')
    asyncio.run(api_to(answers, stream).shards())
    requests = ({"StreamName": stream}, {"NextToken": token})
    assert answers.sent == [("ListShards", by_botocore("ListShards", **request)) for request in requests]


def iterator_body(stream: str, shard: ShardId, position: Position, *, is_inclusive: bool = False) -> bytes:
    answers = Answers('{"ShardIterator":"t"}')
    asyncio.run(api_to(answers, stream).iterator(shard, position, is_inclusive=is_inclusive))
    [(operation, body)] = answers.sent
    assert operation == "GetShardIterator"
    return body


@given(STREAMS, SHARDS, st.integers(0, 10**128), st.booleans())
def test_a_body_that_finds_a_place_is_botocores(stream: str, shard: ShardId, sequence: int, is_inclusive: bool) -> None:
    kind = "AT_SEQUENCE_NUMBER" if is_inclusive else "AFTER_SEQUENCE_NUMBER"
    request = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": kind}
    ours = iterator_body(stream, shard, After(SequenceNumber(sequence)), is_inclusive=is_inclusive)
    assert ours == by_botocore("GetShardIterator", **request, StartingSequenceNumber=str(sequence))


@given(STREAMS, SHARDS)
def test_a_body_that_finds_the_horizon_is_botocores(stream: str, shard: ShardId) -> None:
    theirs = by_botocore("GetShardIterator", StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    assert iterator_body(stream, shard, TrimHorizon()) == theirs


@given(STREAMS, SHARDS, st.integers(0, 4_000_000_000_000))
def test_a_body_that_finds_a_time_is_botocores_but_for_the_fraction(stream: str, shard: ShardId, ms: int) -> None:
    """botocore cuts times down to seconds; Kinesis takes fractions, and a second of a shard can be 1000 records."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    request = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "AT_TIMESTAMP"}
    theirs = by_botocore("GetShardIterator", **request, Timestamp=at)
    whole = b'"Timestamp":%d}' % (ms // 1000)
    assert theirs.endswith(whole)
    fraction = b'"Timestamp":%s}' % repr(ms / 1000).encode()
    assert iterator_body(stream, shard, AtTimestamp(ms)) == theirs.removesuffix(whole) + fraction


@given(STREAMS)
def test_a_body_that_asks_for_a_summary_is_botocores(stream: str) -> None:
    summary = {"StreamCreationTimestamp": 1, "RetentionPeriodHours": 24}
    answers = Answers(json.dumps({"StreamDescriptionSummary": summary}))
    asyncio.run(api_to(answers, stream).summary())
    assert answers.sent == [("DescribeStreamSummary", by_botocore("DescribeStreamSummary", StreamName=stream))]


HEAD = b'{"StreamName":"hub","Records":['


def entries_of(*names: str) -> list[Entry]:
    return [Entry(name.encode(), f'key "{name}"') for name in names]


def test_links_that_send_the_same_events_share_one_body() -> None:
    bodies, entries = Bodies(2), entries_of("a", "b")
    assert bodies.of(HEAD, entries)[0] is bodies.of(HEAD, list(entries))[0]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_what_differs_in_anything_has_its_own_body(kept: int) -> None:
    bodies, (a, b) = Bodies(kept), entries_of("a", "b")
    for head, entries in ((HEAD, [a, b]), (HEAD, [b, a]), (HEAD, [a]), (b'{"StreamName":"x","Records":[', [a, b])):
        body = bodies.of(head, entries)[0]
        assert body.startswith(head)
        assert [r["PartitionKey"] for r in json.loads(body)["Records"]] == [e.partition_key for e in entries]
