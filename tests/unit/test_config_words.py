"""The configuration: mistakes are named in words that say what to write."""

from pathlib import Path

import pytest

from replicator.bootstrap_command import ways_into
from replicator.config_load import check, load
from replicator.core.model import Region
from replicator.errors import ConfigError

TEXT = """\
regions: {{us-east-1: {{}}, eu-west-1: {{}}}}
sources:
  orders: {{stream: hub, sink: hub, lake: lake{orders}}}
  {source}
sinks:
  hub: {{stream: hub{hub}}}
  lake: {{kind: s3, bucket: lake1, buckets: {{eu-west-1: lake2}}}}
{more}
"""
TABLE = "rows: {kind: dynamodb, table: rows, sink: hub, "
URL = "https://sqs.us-east-1.amazonaws.com/123456789012/orders"
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/orders"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"source": f"q: {{kind: sqs, sink: hub, queue: '{URL}'}}"},
            "q.queue: write the name alone, no URL",
        ),
        (
            {"source": f"t: {{kind: dynamodb, sink: hub, table: '{ARN}'}}"},
            "t.table: write the name alone, no URL",
        ),
        (
            {"source": "q: {kind: sqs, sink: hub, queue: a b}"},
            "q.queue: a queue's name has letters, digits, hyphens",
        ),
        (
            {"source": "t: {kind: dynamodb, sink: hub, table: a}"},
            "a table's name has letters, digits, and any of _",
        ),
        ({"more": "quarantine: {s3_bucket: 's3://poison/x'}"}, "quarantine.s3_bucket: write the name alone"),
        ({"more": "leases: {table: a}"}, "leases.table: a table's name has letters, digits"),
        (
            {"source": "s: {stream: a b, sink: hub}"},
            "a stream's name has letters, digits, and any of",
        ),
        (
            {"source": "s: {kind: eventbridge, sink: hub}"},
            "queue of its rule: kind: sqs, envelope: eventbridge",
        ),
        ({"source": "s: {kind: kineses, sink: hub}"}, "dynamodb, sqs or cdc; did you mean 'kinesis'?"),
        ({"source": TABLE + "outbox_attribute: e}"}, "it is for mode outbox, and this is image; leave it out"),
        ({"source": TABLE + "write_id_attribute: e}"}, "it is for written_here: stamp, and this is all; leave it out"),
        ({"more": "link_defaults: {include: {type: [a]}}"}, "include: expected a list; put [ ] around it, or a dash"),
        ({"orders": ", continue_from: lak"}, "there is no sink 'lak'; a lake is a sink of kind s3; there is: lake"),
        ({"more": "quarantine: {lake: lak}"}, "quarantine.lake: there is no sink 'lak'; a lake is a sink of kind s3"),
    ],
)
def test_a_mistake_is_named_in_words_that_say_what_to_write(
    parts: dict[str, str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "replicator.yaml"
    file.write_text(TEXT.format(**dict.fromkeys(("orders", "source", "hub", "more"), "") | parts))
    [problem] = check(str(file), {})[1]
    assert message in problem.message


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    name = str(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError) as refused:
        load(name, {})
    assert str(refused.value) == f"{name}: can't be read: No such file or directory"


def test_a_region_is_not_bootstrapped_from_itself() -> None:
    config = load(str(Path(__file__).parent / "good_configs" / "lake.yaml"), {})
    here = Region("us-east-1")
    with pytest.raises(ConfigError, match="--from us-east-1: a region has its own events"):
        ways_into(config, here, [here])
