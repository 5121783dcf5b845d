"""How a worker starts where something is wrong: it says what, and does not stay for ever."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.aws.lease_rows import FORMAT, new_row
from replicator.aws.session import AwsSession
from replicator.core.model import Shard, ShardId, SourceName

CONFIG = """
regions:
  us-east-1: {{endpoints: {{kinesis: "{aws}", dynamodb: "{aws}"}}}}
  eu-west-1: {{endpoints: {{kinesis: "{aws}"}}}}
sources: {{orders: {{stream: orders, sink: orders}}}}
sinks: {{orders: {{stream: orders}}}}
redis: {{url: "redis://127.0.0.1:1/0"}}
worker: {{http_port: 0, ready_within_s: 1}}
quarantine: {{directory: "{folder}"}}
"""
NEWER = """
regions:
  us-east-1: {{endpoints: {{kinesis: "{kinesis}", dynamodb: "{aws}"}}}}
  eu-west-1: {{endpoints: {{kinesis: "{kinesis}"}}}}
sources: {{orders: {{stream: "{stream}", sink: orders}}}}
sinks: {{orders: {{stream: "{stream}"}}}}
redis: {{url: "{redis}"}}
leases: {{table: "{table}"}}
worker: {{http_port: 0}}
quarantine: {{directory: "{folder}"}}
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def closed_url() -> Iterator[str]:
    """Nobody listens there, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def run_with(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    file = folder / "replicator.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "replicator", "run", "--config", str(file), "--region", "us-east-1"]
    environment = {"PATH": os.environ["PATH"]} | CREDENTIALS | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_worker_that_never_becomes_ready_exits_and_says_why(tmp_path: Path, closed_url: str) -> None:
    done = run_with(CONFIG.format(aws=closed_url, folder=tmp_path), tmp_path)
    assert done.returncode == 1
    assert "did not become ready within 1 s of its start" in done.stderr
    assert closed_url.removeprefix("http://") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tag_key_that_can_be_guessed_is_refused(tmp_path: Path, closed_url: str) -> None:
    text = CONFIG.format(aws=closed_url, folder=tmp_path) + "tag_key: {current: k1, keys: {k1: {env: TAG_K1}}}\n"
    done = run_with(text, tmp_path, TAG_K1="short")
    assert done.returncode == 1
    assert "tag_key: the secret of tag key 'k1' has 5 bytes" in done.stderr
    assert "openssl rand -base64 32" in done.stderr


def test_a_quarantine_that_takes_nothing_is_found_at_the_start(tmp_path: Path, closed_url: str) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    done = run_with(CONFIG.format(aws=closed_url, folder=in_the_way), tmp_path)
    assert done.returncode == 1
    assert f"quarantine.directory {in_the_way} can't be written" in done.stderr
    assert "Traceback" not in done.stderr


SHARD = "shardId-000000000000"


@pytest.mark.parametrize("sort", [f"shard#{SHARD}", "link#orders:eu-west-1"])
async def test_a_row_of_a_newer_version_ends_the_worker_and_says_what_to_do(
    tmp_path: Path, kinesis_url: str, aws_url: str, valkey_url: str, new_name: Callable[[str], str], sort: str
) -> None:
    stream, table = new_name("orders"), new_name("leases")
    kinesis = boto3.client("kinesis", endpoint_url=kinesis_url, region_name="us-east-1")
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    async with AwsSession().client("dynamodb", "us-east-1", aws_url) as client:
        await ensure_table(client, table)
        row = new_row(SourceName("orders"), Shard(ShardId(SHARD)), "0") | {"sk": {"S": sort}}
        row |= {"v": {"N": str(FORMAT + 1)}, "start": {"S": "trim_horizon"}}
        await client.put_item(TableName=table, Item=row)
    text = NEWER.format(kinesis=kinesis_url, aws=aws_url, stream=stream, table=table, redis=valkey_url, folder=tmp_path)
    done = run_with(text, tmp_path)
    assert done.returncode == 1
    said = f"lease table {table}, row orders {sort}: format version {FORMAT + 1}, this version of replicator reads"
    assert f"{said} {FORMAT}: upgrade this worker" in done.stderr
    assert "Traceback" not in done.stderr
    kinesis.close()
