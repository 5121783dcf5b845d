"""What aws-lambda-stream compressed or claim-checked passes through byte for byte, alone and packed by the KPL.

Its publishers put ``COMPRESSED`` and base64 of gzip in the place of any large member (src/utils/compression.js), and an
event whose body went to a bucket is a pointer under ``s3`` (src/utils/claimcheck.js).
"""

import gzip
import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_formats import SECOND
from test_home import HUB, preparer_of
from test_prepare import KEYS

from replicator.core.formats import FormatName, make_format
from replicator.core.kpl import UserRecord, pack, user_records
from replicator.core.model import Record
from replicator.core.tag import encode_tag
from replicator.ports import Page

FORMATS: list[FormatName] = ["json", "lambda-stream"]


def compressed(value: object) -> str:
    return "COMPRESSED" + b64encode(gzip.compress(json.dumps(value).encode())).decode()


def event(**members: Any) -> bytes:
    return json.dumps({"id": "e-1", "type": "order-paid", "timestamp": 1, "partitionKey": "k", **members}).encode()


EVENTS = {
    "compressed": event(order=compressed({"lines": ["x" * 50] * 400}), tags={"region": "us-east-1"}),
    "compressed tags": event(tags=compressed({"region": "us-east-1", "more": "x" * 20_000})),
    "claim-checked": event(s3={"bucket": "lake-us-east-1", "key": "us-east-1/claimchecks/2026/11/25/e-1"}),
}


def left(format_name: FormatName, records: tuple[Record, ...]) -> list[bytes]:
    """What leaves the hub for a peer."""
    preparer = preparer_of(HUB, make_format(format_name), KEYS)
    prepared = preparer.prepare(Page(records, None, 0))
    assert [one.poison for one in prepared] == [None] * len(records)
    return [preparer.entry(one).data for one in prepared]


def without_tag(data: bytes) -> bytes:
    """The text as it stands, the member that holds our tag cut out by hand."""
    head, rest = b'{"_replicator":', data
    assert rest.startswith(head)
    _, end = json.JSONDecoder().raw_decode(rest[len(head) :].decode())
    return b"{" + rest[len(head) + end :].removeprefix(b",")


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("data", EVENTS.values(), ids=EVENTS)
def test_an_event_leaves_and_is_relayed_with_every_byte_it_came_with(format_name: FormatName, data: bytes) -> None:
    [sent] = left(format_name, (Record(data, "k", "7", 1),))
    assert without_tag(sent) == data
    relayed = make_format(format_name).decode(sent).with_tag(encode_tag(SECOND))
    assert without_tag(relayed) == data


@pytest.mark.parametrize("format_name", FORMATS)
def test_so_do_events_that_the_kpl_packed(format_name: FormatName) -> None:
    packed = pack([UserRecord(data, "k") for data in EVENTS.values()])
    sent = left(format_name, tuple(user_records(Record(packed, "outer", "7", 1))))
    assert [without_tag(data) for data in sent] == list(EVENTS.values())
    again = user_records(Record(pack([UserRecord(data, "k") for data in sent]), "outer", "8", 1))
    assert [without_tag(record.data) for record in again] == list(EVENTS.values())


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=40), max_size=4), st.sampled_from(FORMATS))
def test_what_was_compressed_can_be_decompressed(value: dict[str, str], format_name: FormatName) -> None:
    [sent] = left(format_name, (Record(event(order=compressed(value)), "k", "7", 1),))
    text = json.loads(sent)["order"].removeprefix("COMPRESSED")
    assert json.loads(gzip.decompress(b64decode(text))) == value
