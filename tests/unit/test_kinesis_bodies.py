"""The bodies we join say what botocore's serializer says."""

import json

import botocore.session
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from replicator.adapters.kinesis_sink import KinesisSink
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
    ours = KinesisSink(NoApi(stream))._body(entries)
    assert json.loads(ours) == json.loads(theirs["body"])
