"""What moto's Kinesis can do, ours does alike: the same suite against both."""

from collections.abc import Callable, Iterator
from hashlib import md5
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

REGION = "us-east-1"


@pytest.fixture(params=["ours", "moto"])
def kinesis(request: pytest.FixtureRequest) -> Iterator[BaseClient]:
    url = request.getfixturevalue("kinesis_url" if request.param == "ours" else "aws_url")
    client = boto3.client("kinesis", endpoint_url=url, region_name=REGION)
    yield client
    client.close()


@pytest.fixture
def stream(kinesis: BaseClient, new_name: Callable[[str], str]) -> str:
    name = new_name("contract")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=name)
    return name


def read(kinesis: BaseClient, stream: str, shard: str, kind: str, **more: str) -> list[dict[str, Any]]:
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more)
    page = kinesis.get_records(ShardIterator=iterator["ShardIterator"])
    assert page["NextShardIterator"]
    assert page["MillisBehindLatest"] == 0
    return list(page["Records"])


def test_a_new_stream_has_its_shards_and_is_active(kinesis: BaseClient, stream: str) -> None:
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("ACTIVE", 2)
    assert summary["StreamARN"] == f"arn:aws:kinesis:{REGION}:123456789012:stream/{stream}"
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    assert [shard["ShardId"] for shard in shards] == ["shardId-000000000000", "shardId-000000000001"]
    assert [shard["HashKeyRange"] for shard in shards] == [
        {"StartingHashKey": "0", "EndingHashKey": str((1 << 127) - 1)},
        {"StartingHashKey": str(1 << 127), "EndingHashKey": str((1 << 128) - 1)},
    ]


@pytest.mark.parametrize("key", ["a", "b", "c", "order-17", "ü"])
def test_a_key_goes_to_the_same_shard_and_comes_back_with_its_bytes(kinesis: BaseClient, stream: str, key: str) -> None:
    upper_half = md5(key.encode(), usedforsecurity=False).digest()[0] >> 7
    put = kinesis.put_record(StreamName=stream, Data=b"\x00\xff", PartitionKey=key)
    assert put["ShardId"] == f"shardId-{upper_half:012d}"
    [record] = read(kinesis, stream, put["ShardId"], "TRIM_HORIZON")
    assert (record["Data"], record["PartitionKey"]) == (b"\x00\xff", key)
    assert record["SequenceNumber"] == put["SequenceNumber"]


def test_entries_are_read_in_the_order_of_their_sequence_numbers(kinesis: BaseClient, stream: str) -> None:
    entries = [{"Data": b"%d" % i, "PartitionKey": "k", "ExplicitHashKey": "0"} for i in range(5)]
    reply = kinesis.put_records(StreamName=stream, Records=entries)
    assert reply["FailedRecordCount"] == 0
    numbers = [entry["SequenceNumber"] for entry in reply["Records"]]
    shard = reply["Records"][0]["ShardId"]
    assert [r["Data"] for r in read(kinesis, stream, shard, "TRIM_HORIZON")] == [b"0", b"1", b"2", b"3", b"4"]
    after = read(kinesis, stream, shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2])
    at = read(kinesis, stream, shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2])
    assert [record["Data"] for record in after] == [b"3", b"4"]
    assert [record["Data"] for record in at] == [b"2", b"3", b"4"]
    assert read(kinesis, stream, shard, "LATEST") == []


def test_reading_goes_on_where_the_last_page_ended(kinesis: BaseClient, stream: str) -> None:
    entries = [{"Data": b"%d" % i, "PartitionKey": "k", "ExplicitHashKey": "0"} for i in range(5)]
    shard = kinesis.put_records(StreamName=stream, Records=entries)["Records"][0]["ShardId"]
    start = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator, pages = start["ShardIterator"], []
    for _ in range(3):
        page = kinesis.get_records(ShardIterator=iterator, Limit=2)
        pages.append([record["Data"] for record in page["Records"]])
        iterator = page["NextShardIterator"]
    assert pages == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


def test_a_split_gives_children_that_name_their_parent(kinesis: BaseClient, stream: str) -> None:
    parent = "shardId-000000000000"
    kinesis.split_shard(StreamName=stream, ShardToSplit=parent, NewStartingHashKey=str(1 << 126))
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    children = [shard for shard in shards if shard.get("ParentShardId") == parent]
    assert [child["ShardId"] for child in children] == ["shardId-000000000002", "shardId-000000000003"]
    assert children[1]["HashKeyRange"]["StartingHashKey"] == str(1 << 126)


def test_an_unknown_stream_or_shard_is_not_found(kinesis: BaseClient, stream: str) -> None:
    unknown_stream = {"StreamName": "no-such", "ShardId": "shardId-000000000000"}
    unknown_shard = {"StreamName": stream, "ShardId": "shardId-000000000099"}
    for names in (unknown_stream, unknown_shard):
        with pytest.raises(ClientError) as missing:
            kinesis.get_shard_iterator(ShardIteratorType="LATEST", **names)
        assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
