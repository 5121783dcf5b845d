"""The tag: what is written is read back, what is damaged or forged is poison, never a guess."""

import base64
import contextlib
import hmac
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, TagKeys, check_regions, decode_tag, encode_tag
from replicator.errors import PoisonEvent

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
REGIONS = [Region(name) for name in ("us-east-1", "eu-west-1", "ap-southeast-2", "sa-east-1")]


@st.composite
def tags(draw: st.DrawFn) -> Tag:
    path = draw(st.permutations(REGIONS))[: draw(st.integers(1, 4))]
    origin = Origin(
        path[0],
        SourceName(draw(TEXT)),
        draw(TEXT),
        ShardId(draw(TEXT)),
        SequenceNumber(draw(st.integers(0, 10**129 - 1))),
        draw(st.integers(0, 2**31)),
    )
    trace = draw(st.none() | TEXT)
    generation, at_ms = draw(st.integers(1, 2**31)), draw(st.integers(0, 2**52))
    replay = draw(st.none() | TEXT)
    return Tag(generation, origin, EventId(draw(TEXT)), tuple(path), at_ms, trace, replay=replay)


KEYS = TagKeys("k1", {"k1": b"a secret of the tests", "k0": b"an older secret of the tests"})
A_TAG = Tag(
    3,
    Origin(REGIONS[0], SourceName("orders"), "17", ShardId("shardId-000000000000"), SequenceNumber(49), 0),
    EventId("e-1"),
    (REGIONS[0], REGIONS[1]),
    1_700_000_000_000,
)


def reason_of(raw: bytes) -> str:
    with pytest.raises(PoisonEvent) as caught:
        decode_tag(raw)
    return caught.value.reason


@given(tags())
def test_a_tag_is_read_back_as_it_was_written(tag: Tag) -> None:
    assert decode_tag(encode_tag(tag)) == tag
    assert decode_tag(encode_tag(KEYS.sign(tag))) == KEYS.sign(tag)


def test_the_sequence_number_is_text_because_json_readers_lose_big_integers() -> None:
    assert json.loads(encode_tag(A_TAG))["origin"][4] == "49"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_tag_or_poison(raw: bytes) -> None:
    with contextlib.suppress(PoisonEvent):
        assert isinstance(decode_tag(raw), Tag)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", ["eu-west-1"]),
        ("path", ["us-east-1", "eu-west-1", "us-east-1"]),
        ("path", ["us-east-1", *(f"r-{n}" for n in range(16))]),
        ("origin", ["us-east-1", "orders", "17", "s", "-4", 0]),
        ("origin", ["us-east-1", "orders", "17", "s", "9" * 130, 0]),
        ("origin", ["us-east-1", "orders", "17", "s", "4", -1]),
        ("origin", ["us-east-1", "orders", "17", "s", "4", 2**63]),
        ("origin", ["us-east-1", "orders", "17", "s", "٤", 0]),
        ("gen", 0),
        ("id", None),
    ],
)
def test_a_damaged_field_makes_the_tag_malformed(field: str, value: object) -> None:
    damaged = {**json.loads(encode_tag(A_TAG)), field: value}
    assert reason_of(json.dumps(damaged).encode()) == "malformed_tag"


def test_another_version_is_named_and_a_new_field_of_ours_is_not_minded() -> None:
    fields = json.loads(encode_tag(A_TAG))
    assert reason_of(json.dumps({**fields, "v": 2}).encode()) == "unknown_tag_version"
    assert decode_tag(json.dumps({**fields, "later": [1]}).encode()) == A_TAG


def test_a_signature_is_truncated_hmac_sha256_of_the_tags_fixed_part_as_json() -> None:
    place = '["us-east-1","orders","17","shardId-000000000000","49",0]'
    text = f'[1,3,{place},"e-1",["us-east-1","eu-west-1"]]'
    mac = base64.urlsafe_b64encode(hmac.digest(b"a secret of the tests", text.encode(), "sha256")[:16]).decode()
    assert [KEYS.sign(A_TAG).signature for _ in range(2)] == [f"k1.{mac.rstrip('=')}"] * 2


def test_a_signature_holds_under_old_and_new_keys() -> None:
    KEYS.verify(KEYS.sign(A_TAG))
    KEYS.verify(TagKeys("k0", {"k0": b"an older secret of the tests"}).sign(A_TAG))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_id": EventId("e-2")}, "bad_signature"),
        ({"path": (REGIONS[0],)}, "bad_signature"),
        ({"generation": 4}, "bad_signature"),
        ({"origin": msgspec.structs.replace(A_TAG.origin, sequence=SequenceNumber(50))}, "bad_signature"),
        ({"origin": msgspec.structs.replace(A_TAG.origin, source=SourceName("order"))}, "bad_signature"),
        ({"signature": None}, "unsigned"),
        ({"signature": "k9.abc"}, "unknown_tag_key"),
        ({"signature": "k1.\ud800"}, "bad_signature"),
        ({"signature": "k1"}, "bad_signature"),
    ],
)
def test_whatever_is_changed_the_signature_no_longer_holds(change: dict[str, object], reason: str) -> None:
    with pytest.raises(PoisonEvent) as caught:
        KEYS.verify(msgspec.structs.replace(KEYS.sign(A_TAG), **change))
    assert caught.value.reason == reason


def test_a_region_nobody_configured_is_poison() -> None:
    check_regions(A_TAG, frozenset(REGIONS))
    with pytest.raises(PoisonEvent, match="eu-west-1"):
        check_regions(A_TAG, frozenset(REGIONS[:1]))
