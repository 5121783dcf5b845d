"""boto3 finds in our Kinesis endpoint what it would find in AWS."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import botocore
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from replicator.dev.launch import aws_ready, start_aws

REGION = "us-east-1"

HALF = str(1 << 127)
TOP = str((1 << 128) - 1)


def client_of(url: str, **more: Any) -> BaseClient:
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=16, read_timeout=20)
    return boto3.client("kinesis", endpoint_url=url, region_name=REGION, config=config, **more)


@pytest.fixture(scope="module")
def kinesis(kinesis_url: str) -> Iterator[BaseClient]:
    client = client_of(kinesis_url)
    yield client
    client.close()


@dataclass(frozen=True)
class Bench:
    """One stream, and short ways to use it."""

    client: BaseClient
    name: str

    def put(self, *payloads: bytes, key: str = "k", at: str | None = None) -> list[dict[str, Any]]:
        extra = {} if at is None else {"ExplicitHashKey": at}
        records = [{"Data": data, "PartitionKey": key, **extra} for data in payloads]
        reply = self.client.put_records(StreamName=self.name, Records=records)
        assert reply["FailedRecordCount"] == sum("ErrorCode" in record for record in reply["Records"])
        return list(reply["Records"])

    def shards(self) -> list[dict[str, Any]]:
        return list(self.client.list_shards(StreamName=self.name)["Shards"])

    def iterator(self, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
        reply = self.client.get_shard_iterator(StreamName=self.name, ShardId=shard, ShardIteratorType=kind, **more)
        return str(reply["ShardIterator"])

    def page(self, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> dict[str, Any]:
        return dict(self.client.get_records(ShardIterator=self.iterator(shard, kind, **more)))

    def payloads(self, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> list[bytes]:
        """All records from the iterator to the tip or the end of the shard."""
        found, iterator = [], self.iterator(shard, kind, **more)
        while iterator:
            page = self.client.get_records(ShardIterator=iterator)
            found += [record["Data"] for record in page["Records"]]
            iterator = page.get("NextShardIterator") if page["MillisBehindLatest"] else None
        return found


@pytest.fixture
def make_stream(kinesis: BaseClient, new_name: Callable[[str], str]) -> Callable[[int], Bench]:
    def make(shards: int) -> Bench:
        name = new_name("stream")
        kinesis.create_stream(StreamName=name, ShardCount=shards)
        kinesis.get_waiter("stream_exists").wait(StreamName=name)
        return Bench(kinesis, name)

    return make


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def admin(url: str, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/_dev/{path}", data=data, method=method)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def test_streams_are_created_described_listed_and_deleted(
    kinesis: BaseClient, make_stream: Callable[[int], Bench]
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    name = make_stream(3).name
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    described = kinesis.describe_stream(StreamARN=summary["StreamARN"])["StreamDescription"]
    assert before < summary["StreamCreationTimestamp"] < datetime.now(UTC) + timedelta(seconds=1)
    assert (summary["StreamStatus"], summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (
        "ACTIVE",
        3,
        24,
    )
    assert (described["StreamName"], len(described["Shards"]), described["HasMoreShards"]) == (name, 3, False)
    assert name in kinesis.get_paginator("list_streams").paginate().build_full_result()["StreamNames"]
    with pytest.raises(ClientError) as taken:
        kinesis.create_stream(StreamName=name, ShardCount=1)
    assert code(taken) == "ResourceInUseException"
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    assert kinesis.describe_stream(StreamName=name)["StreamDescription"]["RetentionPeriodHours"] == 48
    kinesis.delete_stream(StreamName=name)
    with pytest.raises(ClientError) as gone:
        kinesis.describe_stream_summary(StreamName=name)
    assert code(gone) == "ResourceNotFoundException"


def test_shards_share_the_hash_space_and_are_listed_in_pages(make_stream: Callable[[int], Bench]) -> None:
    bench = make_stream(5)
    page = bench.client.list_shards(StreamName=bench.name, MaxResults=2)
    shards = page["Shards"]
    while "NextToken" in page:
        page = bench.client.list_shards(NextToken=page["NextToken"], MaxResults=2)
        shards += page["Shards"]
    assert [shard["ShardId"] for shard in shards] == [f"shardId-{n:012d}" for n in range(5)]
    ranges = [shard["HashKeyRange"] for shard in shards]
    assert (ranges[0]["StartingHashKey"], ranges[-1]["EndingHashKey"]) == ("0", TOP)
    ends = [int(span["EndingHashKey"]) + 1 for span in ranges[:-1]]
    assert ends == [int(span["StartingHashKey"]) for span in ranges[1:]]
    assert all("EndingSequenceNumber" not in shard["SequenceNumberRange"] for shard in shards)


def test_a_record_comes_back_as_it_was_put_without_its_explicit_hash_key(
    make_stream: Callable[[int], Bench],
) -> None:
    bench = make_stream(2)
    payload = bytes(range(256))
    before = datetime.now(UTC)
    [put] = bench.put(payload, key="schlüssel", at=TOP)
    assert put["ShardId"] == bench.shards()[1]["ShardId"]
    [record] = bench.page(put["ShardId"])["Records"]
    arrived = record.pop("ApproximateArrivalTimestamp")
    assert record == {"SequenceNumber": put["SequenceNumber"], "Data": payload, "PartitionKey": "schlüssel"}
    assert len(put["SequenceNumber"]) == 56
    assert before - timedelta(milliseconds=2) <= arrived <= datetime.now(UTC)


def test_a_partition_key_goes_where_its_md5_falls(make_stream: Callable[[int], Bench]) -> None:
    bench = make_stream(2)
    single = bench.client.put_record(StreamName=bench.name, Data=b"1", PartitionKey="a")
    shards = [bench.put(b"x", key=key)[0]["ShardId"][-1] for key in ("a", "b", "c", "d")]
    assert shards == ["0", "1", "0", "1"]  # md5: 0cc1..., 92eb..., 4a8a..., 8277...
    assert single["ShardId"].endswith("0")


def test_iterators_of_every_type_start_where_they_say(
    make_stream: Callable[[int], Bench],
) -> None:
    bench = make_stream(1)
    a, b, _ = bench.put(b"a", b"b", b"c")
    shard = a["ShardId"]
    latest = bench.iterator(shard, "LATEST")
    bench.put(b"d")
    assert bench.payloads(shard) == [b"a", b"b", b"c", b"d"]
    at = bench.payloads(shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=b["SequenceNumber"])
    after = bench.payloads(shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=b["SequenceNumber"])
    assert (at, after) == ([b"b", b"c", b"d"], [b"c", b"d"])
    early = bench.payloads(shard, "AT_TIMESTAMP", Timestamp=datetime.now(UTC) - timedelta(minutes=1))
    assert early == [b"a", b"b", b"c", b"d"]
    assert [r["Data"] for r in bench.client.get_records(ShardIterator=latest)["Records"]] == [b"d"]
    with pytest.raises(ClientError) as refused:
        bench.iterator(shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber="495903382714902566085596925")
    assert code(refused) == "InvalidArgumentException"


def test_a_split_shard_keeps_its_records_and_ends_with_its_children(
    make_stream: Callable[[int], Bench],
) -> None:
    bench = make_stream(1)
    bench.put(b"old-1", b"old-2")
    parent = bench.shards()[0]["ShardId"]
    bench.client.split_shard(StreamName=bench.name, ShardToSplit=parent, NewStartingHashKey=HALF)
    low = bench.put(b"low", at="0")[0]
    high = bench.put(b"high", at=TOP)[0]
    closed, *children = bench.shards()
    assert int(low["SequenceNumber"]) > int(closed["SequenceNumberRange"]["StartingSequenceNumber"])
    assert int(closed["SequenceNumberRange"]["EndingSequenceNumber"]) > 0
    assert [child["ParentShardId"] for child in children] == [parent, parent]
    assert all("AdjacentParentShardId" not in child for child in children)
    page = bench.page(parent)
    assert [record["Data"] for record in page["Records"]] == [b"old-1", b"old-2"]
    assert "NextShardIterator" not in page
    assert [child["ShardId"] for child in page["ChildShards"]] == [low["ShardId"], high["ShardId"]]
    assert all(child["ParentShards"] == [parent] for child in page["ChildShards"])
    assert (bench.payloads(low["ShardId"]), bench.payloads(high["ShardId"])) == ([b"low"], [b"high"])


def test_a_closed_shard_is_read_page_by_page_before_it_ends(make_stream: Callable[[int], Bench]) -> None:
    bench = make_stream(1)
    bench.put(b"1", b"2", b"3")
    parent = bench.shards()[0]["ShardId"]
    bench.client.split_shard(StreamName=bench.name, ShardToSplit=parent, NewStartingHashKey=HALF)
    first = bench.client.get_records(ShardIterator=bench.iterator(parent), Limit=2)
    assert "ChildShards" not in first
    second = bench.client.get_records(ShardIterator=first["NextShardIterator"], Limit=2)
    assert [record["Data"] for record in second["Records"]] == [b"3"]
    assert "NextShardIterator" not in second


def test_merged_shards_name_both_parents(make_stream: Callable[[int], Bench]) -> None:
    bench = make_stream(3)
    left, right, far = (shard["ShardId"] for shard in bench.shards())
    for pair in ((left, far), (left, left)):
        with pytest.raises(ClientError) as refused:
            bench.client.merge_shards(StreamName=bench.name, ShardToMerge=pair[0], AdjacentShardToMerge=pair[1])
        assert code(refused) == "InvalidArgumentException"
    bench.client.merge_shards(StreamName=bench.name, ShardToMerge=left, AdjacentShardToMerge=right)
    child = bench.shards()[-1]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (left, right)
    for parent in (left, right):
        [end] = bench.page(parent)["ChildShards"]
        assert (end["ShardId"], end["ParentShards"]) == (child["ShardId"], [left, right])
    assert bench.put(b"x", at="0")[0]["ShardId"] == child["ShardId"]
    with pytest.raises(ClientError) as closed:
        bench.client.split_shard(StreamName=bench.name, ShardToSplit=left, NewStartingHashKey="5")
    assert code(closed) == "InvalidArgumentException"


def test_eight_threads_write_four_thousand_records_and_each_is_stored_once(
    make_stream: Callable[[int], Bench],
) -> None:
    bench = make_stream(2)

    def write(writer: int) -> list[str]:
        numbers = []
        for batch in range(10):
            entries = [{"Data": b"%d-%d-%d" % (writer, batch, i), "PartitionKey": f"k{i}"} for i in range(50)]
            reply = bench.client.put_records(StreamName=bench.name, Records=entries)
            numbers += [record["SequenceNumber"] for record in reply["Records"]]
        return numbers

    with ThreadPoolExecutor(8) as pool:
        acknowledged = [number for numbers in pool.map(write, range(8)) for number in numbers]
    stored = [data for shard in bench.shards() for data in bench.payloads(shard["ShardId"])]
    assert sorted(stored) == sorted(b"%d-%d-%d" % (w, b, i) for w in range(8) for b in range(10) for i in range(50))
    assert len(set(acknowledged)) == 4000


def test_trimming_by_request_moves_the_horizon(kinesis_url: str, make_stream: Callable[[int], Bench]) -> None:
    bench = make_stream(1)
    a, b, _ = bench.put(b"a", b"b", b"c")
    body = {"stream": bench.name, "shard": a["ShardId"], "through_sequence": b["SequenceNumber"]}
    assert admin(kinesis_url, "POST", "trim", body) == {"records": 2}
    assert bench.payloads(a["ShardId"]) == [b"c"]
    after = bench.payloads(a["ShardId"], "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=a["SequenceNumber"])
    assert after == [b"c"]
    body = {"stream": bench.name, "before_ms": int(time.time() * 1000) + 1000}
    assert admin(kinesis_url, "POST", "trim", body) == {"records": 1}


def signed_put(url: str, stream: str, age_s: int) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of a PutRecord that botocore signed as of ``age_s`` ago."""
    body = json.dumps({"StreamName": stream, "Data": "eA==", "PartitionKey": "k"})
    headers = {"X-Amz-Target": "Kinesis_20131202.PutRecord", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"{url}/", headers=headers, data=body)
    request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - age_s))
    auth = SigV4Auth(Credentials("test", "test"), "kinesis", REGION)
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    reply = URLLib3Session().send(request.prepare())
    return reply.status_code, dict(reply.headers), json.loads(reply.content)


def test_a_request_signed_over_five_minutes_ago_has_no_effect(
    kinesis_url: str, make_stream: Callable[[int], Bench]
) -> None:
    bench = make_stream(1)
    status, headers, body = signed_put(kinesis_url, bench.name, 301)
    assert (status, body["__type"]) == (400, "InvalidSignatureException")
    assert body["message"].startswith("Signature expired: ")
    assert abs(parsedate_to_datetime(headers["Date"]) - datetime.now(UTC)) < timedelta(seconds=5)
    assert bench.payloads(bench.shards()[0]["ShardId"]) == []
    # 299 and 300 seconds are unit tests: here whole seconds and the request's travel add to the age.
    assert signed_put(kinesis_url, bench.name, 290)[0] == 200
    assert signed_put(kinesis_url, bench.name, -290)[0] == 200


def test_unsigned_wrongly_signed_and_unknown_requests_are_refused(kinesis_url: str) -> None:
    for more, expected in (
        ({"aws_secret_access_key": "wrong", "aws_access_key_id": "test"}, "InvalidSignatureException"),
        ({"aws_secret_access_key": "test", "aws_access_key_id": "who"}, "UnrecognizedClientException"),
    ):
        client = client_of(kinesis_url, **more)
        with pytest.raises(ClientError) as refused:
            client.list_streams()
        assert code(refused) == expected
        client.close()
    unsigned = boto3.client(
        "kinesis",
        endpoint_url=kinesis_url,
        region_name=REGION,
        config=Config(signature_version=botocore.UNSIGNED),
    )
    with pytest.raises(ClientError) as missing:
        unsigned.list_streams()
    assert code(missing) == "MissingAuthenticationTokenException"
    unsigned.close()
    with pytest.raises(ClientError) as unknown:
        client_of(kinesis_url).describe_limits()
    assert code(unknown) == "UnknownOperationException"


def test_limits_are_those_of_aws_unless_told_otherwise(tmp_path: Path) -> None:
    with start_aws(REGION, tmp_path / "log", "--kinesis-only") as child:
        url = child.wait_ready(aws_ready).kinesis
        client = client_of(url)
        client.create_stream(StreamName="s", ShardCount=1)
        bench = Bench(client, "s")
        results = [result for _ in range(10) for result in bench.put(*[b"x"] * 500)]
        failed = [result for result in results if "ErrorCode" in result]
        assert {result["ErrorCode"] for result in failed} == {"ProvisionedThroughputExceededException"}
        assert all("SequenceNumber" not in result for result in failed)
        assert 0 < len(failed) <= 4000
        counts = admin(url, "GET", "stats")["streams"]["s"]
        assert (counts["records_in"], counts["entries_throttled"]) == (5000 - len(failed), len(failed))
        assert "ProvisionedThroughputExceededException" in read_errors(bench, attempts=10)
        client.close()


def test_an_iterator_expires(tmp_path: Path) -> None:
    with start_aws(REGION, tmp_path / "log", "--kinesis-only", "--limits", "off", "--iterator-ttl-s", "0.01") as child:
        client = client_of(child.wait_ready(aws_ready).kinesis)
        client.create_stream(StreamName="s", ShardCount=1)
        assert read_error(Bench(client, "s"), attempts=1000) == "ExpiredIteratorException"
        client.close()


def read_error(bench: Bench, *, attempts: int) -> str | None:
    """The first error code met by reading one iterator again and again."""
    iterator = bench.iterator("shardId-000000000000")
    return next(filter(None, (read_code(bench, iterator) for _ in range(attempts))), None)


def read_errors(bench: Bench, *, attempts: int) -> set[str | None]:
    """The error codes met by so many reads of one iterator at the same time."""
    iterator = bench.iterator("shardId-000000000000")
    with ThreadPoolExecutor(attempts) as pool:
        return set(pool.map(lambda _: read_code(bench, iterator), range(attempts)))


def read_code(bench: Bench, iterator: str) -> str | None:
    try:
        bench.client.get_records(ShardIterator=iterator, Limit=1)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def mismatches(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Where a raw reply leaves the service model: unknown members, missing ones, other types."""
    kinds = {"string": str, "blob": str, "integer": int, "long": int, "boolean": bool, "timestamp": float}
    match shape.type_name:
        case "structure":
            yield from (f"{path}.{name} is unknown" for name in value.keys() - shape.members.keys())
            yield from (f"{path}.{name} is missing" for name in shape.required_members if name not in value)
            for name in value.keys() & shape.members.keys():
                yield from mismatches(shape.members[name], value[name], f"{path}.{name}")
        case "list":
            for item in value:
                yield from mismatches(shape.member, item, f"{path}[]")
        case kind if not isinstance(value, kinds[kind]):
            yield f"{path} is {value!r}, not {kind}"


def test_every_reply_has_the_members_that_the_service_model_names(kinesis_url: str) -> None:
    """botocore drops unknown members in silence, so the raw replies are held against its model."""
    client = client_of(kinesis_url)
    replies: dict[str, list[str]] = {}

    def hold(http_response: Any, model: Any, **_: Any) -> None:
        found = replies.setdefault(model.name, [])
        if model.output_shape is not None:
            found += mismatches(model.output_shape, json.loads(http_response.content), model.name)

    client.meta.events.register("after-call.kinesis", hold)
    client.create_stream(StreamName="modelled", ShardCount=2)
    bench = Bench(client, "modelled")
    left, right = (shard["ShardId"] for shard in bench.shards())
    bench.put(b"a", at="0")
    client.put_record(StreamName="modelled", Data=b"b", PartitionKey="k")
    client.merge_shards(StreamName="modelled", ShardToMerge=left, AdjacentShardToMerge=right)
    client.split_shard(StreamName="modelled", ShardToSplit="shardId-000000000002", NewStartingHashKey="9")
    bench.page(left)
    client.list_shards(StreamName="modelled", MaxResults=1)
    client.describe_stream(StreamName="modelled")
    client.describe_stream_summary(StreamName="modelled")
    client.list_streams(Limit=1)
    client.increase_stream_retention_period(StreamName="modelled", RetentionPeriodHours=30)
    client.decrease_stream_retention_period(StreamName="modelled", RetentionPeriodHours=24)
    client.delete_stream(StreamName="modelled")
    client.close()
    assert len(replies) == 14
    assert {name: found for name, found in replies.items() if found} == {}
