"""`replicator filter`: what a link would do with the events in a hub, without sending any."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.cli import main
from replicator.dev.clients import kinesis_client

CONFIG = """\
regions: {us-east-1: {endpoints: {kinesis: "URL"}}, eu-west-1: {}}
sources: {orders: {stream: STREAM, sink: hub}}
sinks: {hub: {stream: STREAM, record_bytes_max: 1500}}
links:
  - source: orders
    peer: eu-west-1
    exclude: [{pii: [{exists: true}]}]
    redact: {who.email: mark}
    residency: [{within: [us-*], paths: [card]}]
"""


@pytest.fixture
def config(kinesis_url: str, new_name: Callable[[str], str], tmp_path: Path) -> Path:
    """A hub with ten records."""
    stream = new_name("filtered")
    client = kinesis_client(kinesis_url, "us-east-1")
    client.create_stream(StreamName=stream, ShardCount=2)
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    replica = {"v": 1, "gen": 1, "origin": ["eu-west-1", "orders", "1", "s", "5", 0], "id": "r", "at": 1}
    bodies: list[bytes] = [
        b'{"id":"1"}',
        b'{"id":"2","pii":"x"}',
        b'{"id":"3"}',
        b"no json",
        b'{"id":"4","who":{"email":"jo@x.eu","n":1.50}}',
        b'{"id":"5","who":"COMPRESSEDH4sI"}',
        b'{"id":"6","card":"4111"}',
        b'{"id":"7","card":null}',
        b'{"id":"8","text":"%s"}' % (b"x" * 1400),
        json.dumps({"_replicator": {**replica, "path": ["eu-west-1"]}, "id": "r"}).encode(),
    ]
    for number, body in enumerate(bodies):
        client.put_record(StreamName=stream, PartitionKey=str(number), Data=body)
    client.close()
    file = tmp_path / "replicator.yaml"
    file.write_text(CONFIG.replace("STREAM", stream).replace("URL", kinesis_url))
    return file


def test_every_event_has_its_fate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["filter", "--config", str(config), "--region", "us-east-1", "--link", "orders:eu-west-1"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {
        "forwarded": 3,
        "forwarded, redacted": 1,
        "excluded": 1,
        "no_route": 1,
        "quarantine: not_json": 1,
        "quarantine: unredactable": 1,
        "quarantine: residency": 1,
        "quarantine: oversize": 1,
    }
    assert found["examples"]["forwarded, redacted"] == ['{"id":"4","who":{"email":"[redacted]","n":1.50}}']
    assert found["examples"]["excluded"] == ['{"id":"2","pii":"x"}']
    assert main(command) == 0
    assert "excluded" in capsys.readouterr().out


def test_a_link_that_is_none_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "--config", str(config), "--region", "us-east-1", "--link", "orders:eu-west-2"]) == 1
    assert "only orders:eu-west-1" in capsys.readouterr().err
