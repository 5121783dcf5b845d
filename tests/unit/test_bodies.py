"""Bodies of PutRecords that links share."""

import json
from hashlib import sha256

import pybase64
import pytest

from replicator.adapters.kinesis_sink import Bodies
from replicator.ports import Entry

HEAD = b'{"StreamName":"hub","Records":['


def entries_of(*names: str) -> list[Entry]:
    return [Entry(name.encode(), f'key "{name}"') for name in names]


def test_a_body_is_the_request_and_its_hash() -> None:
    body, digest = Bodies().of(HEAD, entries_of("a", "é"))
    records = json.loads(body)["Records"]
    assert [(pybase64.b64decode(r["Data"]).decode(), r["PartitionKey"]) for r in records] == [
        ("a", 'key "a"'),
        ("é", 'key "é"'),
    ]
    assert digest == sha256(body).hexdigest()


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
