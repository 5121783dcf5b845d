"""What leaves over a link: fields are redacted, and what must stay where it was born stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.egress import Egress, EgressRules, How, Residency
from replicator.core.formats import make_format
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.routing import Drop
from replicator.core.tag import Tag, TagKeys, encode_tag
from replicator.errors import PoisonEvent

EU, US = Region("eu-west-1"), Region("us-east-1")
KEY = b"0123456789abcdef"
STAYS = Residency(["eu-*"], ["customer.email"])


def redacted(event: str, redact: dict[str, How], key: bytes = KEY) -> str:
    leaving = Egress(EgressRules(redact), key).leaving(event.encode(), US)
    assert isinstance(leaving, bytes)
    return leaving.decode()


def refused(event: bytes, rules: EgressRules, origin: Region = EU) -> PoisonEvent:
    with pytest.raises(PoisonEvent) as refusal:
        Egress(rules, KEY).leaving(event, origin)
    return refusal.value


def test_fields_are_removed_marked_or_hashed_and_all_else_stays_as_it_was() -> None:
    event = '{"id":"1", "customer" : {"name":"Jo","email":"jo@x.eu","n":7 , "total":5.50}}'
    got = redacted(event, {"customer.name": "mark", "customer.email": "remove", "customer.n": "hash"})
    assert got == (
        '{"id":"1", "customer" : {"name":"[redacted]","n":"hmac:f69cf4852626eee19b92af564b9413e4" , "total":5.50}}'
    )


def test_an_event_without_the_fields_is_the_same_object() -> None:
    for event in (b'{"id":"1","customer":{}}', b'{"id":"1"}', b'{"a":"\\u0061"}'):
        assert Egress(EgressRules({"customer.email": "remove"})).leaving(event, US) is event


def test_the_hash_is_of_what_text_says_and_of_the_key() -> None:
    one, same, other = '{"a":"é"}', '{"a":"\\u00e9"}', '{"a":"e"}'
    assert redacted(one, {"a": "hash"}) == redacted(same, {"a": "hash"}) != redacted(other, {"a": "hash"})
    assert redacted(one, {"a": "hash"}) != redacted(one, {"a": "hash"}, b"f" * 16)
    assert redacted('{"a":5}', {"a": "hash"}) != redacted('{"a":"5"}', {"a": "hash"})


@pytest.mark.parametrize("how", ["remove", "mark", "hash"])
def test_a_relay_leaves_alone_what_was_redacted_before(how: How) -> None:
    rules: dict[str, How] = {"a.b": how, "c": how}
    once = redacted('{"a":{"b":"x"},"c":[1]}', rules)
    assert redacted(once, rules) == once
    whole = redacted('{"a":{"b":"x"}}', {"a": how})
    assert redacted(whole, rules) == whole


@pytest.mark.parametrize(
    "event",
    [
        b'{"customer":"COMPRESSEDH4sIAAAA"}',
        b'{"customer":"{\\"email\\":\\"x\\"}"}',
        b'{"customer":[{"email":"x"},"y"]}',
        b'{"cust\\u006fmer":"x"}',
        b'{"customer":{"email":"\xff"}}',
        b'{"customer":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"1","type":"t","s3":{"bucket":"b","key":"k"}}',
        b'{"detail":{"s3":{"bucket":"b","key":"k"}}}',
        b'{"specversion":"1.0","s3bucket":"b","s3key":"k"}',
    ],
)
def test_what_can_not_be_looked_into_does_not_leave(event: bytes) -> None:
    assert refused(event, EgressRules({"customer.email": "remove"})).reason == "unredactable"
    assert refused(event, EgressRules({}, [STAYS])).reason in ("unredactable", "residency")


def test_a_pointer_to_a_body_in_which_the_same_was_redacted_leaves() -> None:
    event = b'{"s3":{"bucket":"b","key":"k","redacted":["a","customer.email"]}}'
    assert Egress(EgressRules({"customer.email": "mark"})).leaving(event, EU) is event
    refusal = refused(event, EgressRules({"customer.name": "mark"}))
    assert (refusal.reason, "customer.name may be in it unseen" in refusal.detail) == ("unredactable", True)
    assert refused(event, EgressRules({}, [STAYS])).reason == "residency"
    absent = b'{"s3":{"bucket":"b","key":"k","absent":["customer.email"]}}'
    assert Egress(EgressRules({}, [STAYS])).leaving(absent, EU) is absent
    assert refused(absent, EgressRules({"customer.email": "mark"})).reason == "unredactable"


def test_what_was_born_there_and_holds_something_goes_nowhere_else() -> None:
    rules = EgressRules({}, [STAYS])
    event = b'{"customer":{"email":"jo@x.eu"}}'
    poison = refused(event, rules.towards(US))
    assert poison.reason == "residency"
    assert "jo@x.eu" not in str(poison)
    assert Egress(rules.towards(US)).leaving(event, US) is event
    assert rules.towards(Region("eu-central-1")).is_idle
    drop = EgressRules({}, [Residency(["eu-*"], ["customer.email"], "drop")])
    assert Egress(drop).leaving(event, EU) == Drop("residency")


@pytest.mark.parametrize("value", ["null", '"[redacted]"'])
def test_nothing_is_held_where_there_is_null_or_our_mark(value: str) -> None:
    event = f'{{"customer":{{"email":{value}}}}}'.encode()
    assert Egress(EgressRules({}, [STAYS])).leaving(event, EU) is event


@pytest.mark.parametrize(("how", "leaves"), [("remove", True), ("mark", True), ("hash", False)])
def test_residency_looks_at_what_would_leave(how: How, leaves: bool) -> None:
    rules = EgressRules({"customer.email": how}, [STAYS])
    event = b'{"customer":{"email":"jo@x.eu"}}'
    if leaves:
        assert b"jo@" not in bytes(Egress(rules, KEY).leaving(event, EU))  # type: ignore[arg-type]
    else:
        assert refused(event, rules).reason == "residency"


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes or more"):
        Egress(EgressRules({"a": "hash"}), b"short")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = TEXTS | st.integers() | st.none()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=8)


@pytest.mark.parametrize("kind", ["json", "cloudevents", "lambda-stream"])
@given(detail=VALUES, how=st.sampled_from(["remove", "mark", "hash"]))
def test_id_origin_path_and_signature_are_what_they_were(kind: str, detail: object, how: How) -> None:
    """A secret that stands at a path is nowhere in what leaves."""
    secret = "x5ecretx"
    event_format, keys = make_format(kind), TagKeys("k1", {"k1": KEY})  # type: ignore[arg-type]
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/s",
        "type": "t",
        "data": {"who": {"email": secret}, "list": [{"email": [secret]}], "rest": detail},
    }
    origin = Origin(US, SourceName("orders"), "1", ShardId("s"), SequenceNumber(7))
    tag = keys.sign(Tag(1, origin, EventId("e-1"), (US,), 5))
    data = event_format.decode(json.dumps(event).encode()).with_tag(encode_tag(tag))
    rules: dict[str, How] = {"data.who.email": how, "data.list.email": how}
    leaving = Egress(EgressRules(rules), KEY).leaving(data, US)
    assert isinstance(leaving, bytes)
    decoded = event_format.decode(leaving)
    assert decoded.tag == tag
    keys.verify(decoded.tag)
    assert secret.encode() not in leaving
    assert json.loads(leaving)["data"]["rest"] == detail
