"""How a worker starts where something is wrong: it says what, and does not stay for ever."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.aws.lease_rows import new_row
from replicator.aws.session import AwsSession
from replicator.core.model import Shard, ShardId, SourceName

CONFIG = """
regions:
  us-east-1: {{endpoints: {{kinesis: "{kinesis}", dynamodb: "{aws}"}}}}
  eu-west-1: {{endpoints: {{kinesis: "{kinesis}"}}}}
sources: {{orders: {{stream: orders, sink: orders}}}}
sinks: {{orders: {{stream: orders}}}}
redis: {{url: "{redis}"}}
leases: {{table: replicator-leases, duration_s: 3, renew_s: 1}}
worker: {{http_port: 0, ready_within_s: {ready_within_s}}}
quarantine: {{directory: "{folder}"}}
"""
NO_REDIS = "redis://127.0.0.1:1/0"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def closed_url() -> Iterator[str]:
    """Nobody listens there, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def config(folder: Path, *, aws: str, kinesis: str = "", redis: str = NO_REDIS, ready_within_s: int = 1) -> str:
    return CONFIG.format(aws=aws, kinesis=kinesis or aws, redis=redis, folder=folder, ready_within_s=ready_within_s)


def run_with(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    file = folder / "replicator.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "replicator", "run", "--config", str(file), "--region", "us-east-1"]
    environment = {"PATH": os.environ["PATH"]} | CREDENTIALS | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_worker_that_never_becomes_ready_exits_and_says_why(tmp_path: Path, closed_url: str) -> None:
    done = run_with(config(tmp_path, aws=closed_url), tmp_path)
    assert done.returncode == 1
    assert "did not become ready within 1 s of its start" in done.stderr
    assert closed_url.removeprefix("http://") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tag_key_that_can_be_guessed_is_refused(tmp_path: Path, closed_url: str) -> None:
    text = config(tmp_path, aws=closed_url) + "tag_key: {current: k1, keys: {k1: {env: TAG_K1}}}\n"
    done = run_with(text, tmp_path, TAG_K1="short")
    assert done.returncode == 1
    assert "tag_key: the secret of tag key 'k1' has 5 bytes" in done.stderr
    assert "openssl rand -base64 32" in done.stderr


def test_a_quarantine_that_takes_nothing_is_found_at_the_start(tmp_path: Path, closed_url: str) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    done = run_with(config(in_the_way, aws=closed_url), tmp_path)
    assert done.returncode == 1
    assert f"quarantine.directory {in_the_way} can't be written" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_lease_table_of_a_later_version_ends_a_worker_with_a_word(
    tmp_path: Path, kinesis_url: str, aws_url: str, valkey_url: str
) -> None:
    """A version that was rolled back must not touch what the newer one has written."""
    client = boto3.client("dynamodb", endpoint_url=aws_url, region_name="us-east-1")
    kinesis = boto3.client("kinesis", endpoint_url=kinesis_url, region_name="us-east-1")
    if "orders" not in kinesis.list_streams()["StreamNames"]:
        kinesis.create_stream(StreamName="orders", ShardCount=1)
    async with AwsSession() as aws, aws.client("dynamodb", "us-east-1", aws_url) as session:
        await ensure_table(session, "replicator-leases")
    row = {**new_row(SourceName("orders"), Shard(ShardId("shardId-000000000000")), "17"), "v": {"N": "9"}}
    client.put_item(TableName="replicator-leases", Item=row)
    text = config(tmp_path, aws=aws_url, kinesis=kinesis_url, redis=valkey_url, ready_within_s=60)
    done = await asyncio.to_thread(run_with, text, tmp_path)
    client.delete_table(TableName="replicator-leases")
    assert done.returncode == 1
    assert "row orders shard#shardId-000000000000: format version 9, this worker knows 1" in done.stderr
    assert "Traceback" not in done.stderr
