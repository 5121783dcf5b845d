"""The bodies we join say what botocore's serializer says."""

import json
from hashlib import sha256

import botocore.session
import pytest
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.kinesis_sink import Bodies, KinesisSink
from replicator.aws.kinesis_api import KinesisApi
from replicator.ports import Entry

MODEL = botocore.session.Session().get_service_model("kinesis").operation_model("PutRecords")
SERIALIZER = create_serializer("json", include_validation=True)
ENTRIES = st.builds(
    Entry, st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
)


class NoApi(KinesisApi):
    """A stream's name, and no way to call it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream


@given(st.from_regex(r"[a-zA-Z0-9_.-]{1,128}", fullmatch=True), st.lists(ENTRIES, min_size=1, max_size=20))
def test_a_put_body_is_botocores(stream: str, entries: list[Entry]) -> None:
    records = [{"Data": entry.data, "PartitionKey": entry.partition_key} for entry in entries]
    theirs = SERIALIZER.serialize_to_request({"StreamName": stream, "Records": records}, MODEL)
    sink = KinesisSink(NoApi(stream))
    ours, digest = sink._bodies.of(sink._head, entries)
    assert json.loads(ours) == json.loads(theirs["body"])
    assert digest == sha256(ours).hexdigest()


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
