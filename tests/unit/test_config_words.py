"""The configuration: mistakes are named in words that say what to write."""

from pathlib import Path

import pytest

from replicator.bootstrap_command import ways_into
from replicator.config_load import check, load, warnings
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
        (
            {"more": "quarantine: {s3_bucket: lake2, s3_prefix: lake/poison/}"},
            "events under 'lake/' of sinks.lake would be among each other in bucket 'lake2'; give quarantine.s3_prefix",
        ),
        (
            {"hub": ", claim_check: {bucket: checks, buckets: {eu-west-1: lake2}, prefix: l}"},
            "sinks.lake: events under 'lake/' and bodies under 'l' of sinks.hub.claim_check would be among each other",
        ),
        (
            {
                "hub": ", claim_check: {bucket: a-1, buckets: {eu-west-1: a-2}}",
                "more": "quarantine: {s3_bucket: a-2, s3_prefix: claim-checks/q/}",
            },
            "poison under 'claim-checks/q/' and bodies under 'claim-checks/' of sinks.hub.claim_check",
        ),
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


def test_places_in_one_bucket_are_well_apart(tmp_path: Path) -> None:
    file = tmp_path / "replicator.yaml"
    apart = {
        "hub": ", claim_check: {bucket: lake1, buckets: {eu-west-1: lake2}}",
        "more": "quarantine: {s3_bucket: lake1}",
    }
    file.write_text(TEXT.format(orders="", source="", **apart))
    assert check(str(file), {})[1] == []


def test_a_lake_to_continue_from_that_is_paused_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "replicator.yaml"
    lines = {"orders": ", continue_from: lake", "source": "", "hub": ""}
    file.write_text(TEXT.format(**lines, more=""))
    assert warnings(str(file), {}, check(str(file), {})[0]) == []
    file.write_text(TEXT.format(**lines, more="links: [{source: orders, from: eu-west-1, peer: lake, paused: true}]"))
    [warning] = warnings(str(file), {}, check(str(file), {})[0])
    assert "orders:lake is paused in eu-west-1: what the hub forgets there meanwhile is lost" in warning.message


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
