"""What benchmarks need of the Kinesis endpoint: TLS beside plain HTTP, and exact times of records."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import SSLError

from replicator.dev.certificate import make_certificate
from replicator.dev.clients import kinesis_client
from replicator.dev.launch import aws_ready, start_aws

REGION = "us-east-1"


def test_the_endpoint_serves_one_state_over_tls_and_plain(aws_credentials: None, tmp_path: Path) -> None:
    """What is made in the clear is there under TLS, for whoever trusts the certificate and for nobody else."""
    made = make_certificate(tmp_path)
    options = ("--kinesis-only", "--certificate", str(made.file), "--key", str(made.key_file))
    with start_aws(REGION, tmp_path / "log", *options) as child:
        ready = child.wait_ready(aws_ready)
        assert isinstance(ready.kinesis_tls, str)
        kinesis_client(ready.kinesis, REGION).create_stream(StreamName="s", ShardCount=1)

        def names(verify: str | bool) -> list[str]:
            client = boto3.client("kinesis", endpoint_url=ready.kinesis_tls, region_name=REGION, verify=verify)
            with_client: list[str] = client.list_streams()["StreamNames"]
            client.close()
            return with_client

        assert names(str(made.file)) == ["s"]
        with pytest.raises(SSLError):
            names(True)


def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    assert make_certificate(tmp_path).key_file.stat().st_mode & 0o077 == 0


def journal(url: str, stream: str, method: str) -> Any:
    request = urllib.request.Request(f"{url}/_dev/journal?stream={stream}", method=method)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def test_a_journal_tells_when_records_were_stored_and_first_read(
    kinesis_url: str, new_name: Callable[[str], str]
) -> None:
    """By the monotonic clock of the machine, so that times of several processes compare."""
    stream = new_name("s")
    client = kinesis_client(kinesis_url, REGION)
    client.create_stream(StreamName=stream, ShardCount=1)
    place = {"StreamName": stream, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    records = [{"Data": b"x", "PartitionKey": "k"}]
    client.put_records(StreamName=stream, Records=records)
    journal(kinesis_url, stream, "POST")
    begun_ns = time.monotonic_ns()
    sequence = client.put_records(StreamName=stream, Records=records)["Records"][0]["SequenceNumber"]
    put_ns = time.monotonic_ns()
    iterator = client.get_shard_iterator(**place)["ShardIterator"]
    client.get_records(ShardIterator=iterator)
    read_ns = time.monotonic_ns()
    client.get_records(ShardIterator=iterator)
    client.close()

    noted = journal(kinesis_url, stream, "DELETE")
    assert noted["stored_ns"].keys() == {sequence}, "what was stored before is not in it"
    assert begun_ns < noted["stored_ns"][sequence] < put_ns < noted["read_ns"][sequence] < read_ns
    assert journal(kinesis_url, stream, "DELETE") == {"stored_ns": {}, "read_ns": {}}, "it ends when it is taken"
