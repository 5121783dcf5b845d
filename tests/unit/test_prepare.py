"""Preparing events: the short way of plain events leads to the very bytes of the long one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.formats import Format, JsonFormat, LambdaStreamFormat
from replicator.core.model import Record, Region, ShardId, SourceName
from replicator.core.tag import TagKeys, decode_tag
from replicator.ports import Page
from replicator.worker.prepare import Birthplace, Prepared, Preparer
from replicator.worker.redrive import Unskimmed

HERE, PEER = Region("us-east-1"), Region("eu-west-1")
PLACE = Birthplace(HERE, SourceName("orders"), "1700000000000", ShardId("shardId-000000000000"))
KEYS = TagKeys("k1", {"k1": b"a secret of the tests"})
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Clock:
    def now_ms(self) -> int:
        return 1_700_000_000_123


def preparer_of(event_format: Format, keys: TagKeys | None = None) -> Preparer:
    return Preparer(
        birthplace=PLACE,
        event_format=event_format,
        known_regions=frozenset((HERE, PEER)),
        generation_at=lambda arrival_ms: 1 + arrival_ms // 1000,
        keys=keys,
        clock=Clock(),
    )


def prepare(
    event_format: Format, data: bytes, keys: TagKeys | None = None, sequence: int = 7
) -> tuple[Prepared, bytes]:
    preparer = preparer_of(event_format, keys)
    record = Record(data, "k", str(sequence), 4321, sequence % 3)
    [prepared] = preparer.prepare(Page((record,), None, 0))
    return prepared, b"" if prepared.poison else preparer.entry(prepared).data


def way(prepared: Prepared) -> tuple[object, ...] | None:
    route = prepared.route
    return None if route is None else (route.generation, route.origin, route.path)


JSON_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
MEMBERS = st.dictionaries(
    st.text() | st.sampled_from(["id", "type", "tags", "traceparent", "_replicator"]), JSON_VALUES
)
IDS = st.text() | st.integers() | st.just('"\\') | st.none()


@given(
    MEMBERS,
    IDS,
    st.sampled_from([None, ",", " , ", "\n"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**128),
    st.booleans(),
)
def test_both_ways_lead_to_the_same_bytes_claim_and_coordinates(
    members: dict[str, object],
    event_id: object,
    separator: str | None,
    is_ascii: bool,
    is_signed: bool,
    sequence: int,
    is_lambda: bool,
) -> None:
    body = {"type": "t"} | members | ({"id": event_id} if event_id is not None else {})
    separators = (separator or ",", ":")
    data = json.dumps(body, separators=separators if separator != "\n" else None, ensure_ascii=is_ascii)
    event_format: Format = LambdaStreamFormat() if is_lambda else JsonFormat("id")
    keys = KEYS if is_signed else None
    encoded = data.encode("utf-8", "surrogatepass")
    short, short_bytes = prepare(event_format, encoded, keys, sequence)
    long, long_bytes = prepare(Unskimmed(event_format), encoded, keys, sequence)
    assert short_bytes == long_bytes
    assert (short.claim, short.origin, short.tag, way(short)) == (
        long.claim,
        long.origin,
        long.tag,
        way(long),
    )
    assert (short.poison is None) == (long.poison is None)


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"e"}',
        b'{"type":"t","id":"e\\u00e9"}',
        '{"id":"é","n":1}'.encode(),
    ],
)
def test_most_events_are_plain(data: bytes) -> None:
    prepared, _ = prepare(JsonFormat("id"), data)
    assert prepared.event_id is not None


@pytest.mark.parametrize(
    "data",
    [
        b'{ "id":"e"}',
        b' {"id":"e"}',
        b'{"id":""}',
        b'{"id":7}',
        b'{"n":1}',
        b"{}",
        b"[]",
        b'{"id":"e"',
        b'{"id":"e","traceparent":"%b"}' % TRACE.encode(),
        b'{"id":"e","_replicator":{}}',
    ],
)
def test_what_is_not_plain_goes_the_long_way(data: bytes) -> None:
    assert JsonFormat("id").skim([data]) == [None]


def test_a_signed_tag_of_a_plain_event_is_verified_like_any_other() -> None:
    _, data = prepare(JsonFormat("id"), b'{"id":"e","n":1}', KEYS)
    raw = data[len(b'{"_replicator":') : -len(b',"id":"e","n":1}')]
    KEYS.verify(decode_tag(raw))


def a_replica(*, keys: TagKeys | None = None, **changed: object) -> bytes:
    tag = {
        "v": 1,
        "gen": 1,
        "origin": [PEER, "orders", "17", "shardId-000000000003", "4959", 0],
        "id": "e",
        "path": [PEER],
        "at": 1_700_000_000_000,
    }
    if keys is not None:
        good = decode_tag(json.dumps(tag).encode())
        tag["sig"] = keys.sign(good).signature
    return json.dumps({"_replicator": tag | changed, "id": "e", "type": "t"}, separators=(",", ":")).encode()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "v": st.integers(0, 2),
            "gen": st.integers(-1, 2),
            "at": st.integers(-1, 5) | st.floats(allow_nan=False) | st.none(),
            "path": st.lists(st.sampled_from([HERE, PEER, "sa-east-1"]), max_size=3),
            "id": st.text() | st.none(),
            "trace": st.text(),
            "more": JSON_VALUES,
            "sig": st.sampled_from(["", "k1.", "k2.x", "k1.AAAAAAAAAAAAAAAAAAAAAA", None]),
            "origin": st.tuples(
                st.sampled_from([HERE, PEER, "sa-east-1"]),
                st.text(),
                st.text(),
                st.text(),
                st.text("0123456789x٣") | st.integers(0, 10**130).map(str),
                st.integers(-1, 2),
            ),
        },
    ),
    st.sampled_from([b"", b',"_replicator":7', b',"x":"\\"_replicator\\""', b',"a"', b" "]),
    st.booleans(),
    st.sampled_from([None, KEYS]),
)
def test_a_replica_skimmed_is_the_replica_decoded(
    changed: dict[str, object], more: bytes, is_lambda: bool, keys: TagKeys | None
) -> None:
    event_format: Format = LambdaStreamFormat() if is_lambda else JsonFormat("id")
    data = a_replica(keys=keys, **changed)[:-1] + more + b"}"
    short, long = preparer_of(event_format, keys), preparer_of(Unskimmed(event_format), keys)
    records = tuple(Record(text, "k", "7", 4321) for text in (a_replica(keys=keys), data))
    _, skimmed = short.prepare(Page(records, None, 0))
    _, decoded = long.prepare(Page(records, None, 0))
    assert (skimmed.poison is None, way(skimmed)) == (decoded.poison is None, way(decoded))
    if skimmed.poison is None:
        if not skimmed.claim:
            short.complete(skimmed)
        assert (skimmed.claim, skimmed.origin) == (decoded.claim, decoded.origin)
        assert short.entry(skimmed) == long.entry(decoded)


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_replica_of_a_known_way_is_not_decoded_until_it_goes_on(keys: TagKeys | None) -> None:
    preparer = preparer_of(JsonFormat("id"), keys)
    first, second = preparer.prepare(Page((Record(a_replica(keys=keys), "k", "7", 0),) * 2, None, 0))
    assert (first.route, second.route, second.decoded) == (first.route, first.route, None)
