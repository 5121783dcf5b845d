"""Each injected fault does to a real client what the vendor or the network would."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

REGION = "us-east-1"


class Bench:
    """A stream of one shard on the shared endpoint, with faults for it alone."""

    def __init__(self, url: str, client: BaseClient, name: str) -> None:
        self.url, self.client, self.name = url, client, name
        client.create_stream(StreamName=name, ShardCount=1)
        self.shard = client.list_shards(StreamName=name)["Shards"][0]["ShardId"]

    def inject(self, *rules: dict[str, Any]) -> None:
        admin(self.url, "POST", "faults?seed=1", [{"stream": self.name, **rule} for rule in rules])

    def put(self, *payloads: bytes) -> dict[str, Any]:
        records = [{"Data": data, "PartitionKey": "k"} for data in payloads]
        return dict(self.client.put_records(StreamName=self.name, Records=records))

    def iterator(self) -> str:
        reply = self.client.get_shard_iterator(
            StreamName=self.name, ShardId=self.shard, ShardIteratorType="TRIM_HORIZON"
        )
        return str(reply["ShardIterator"])

    def stored(self) -> list[bytes]:
        page = self.client.get_records(ShardIterator=self.iterator())
        return [record["Data"] for record in page["Records"]]


def admin(url: str, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/_dev/{path}", data=data, method=method)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


@pytest.fixture
def bench(kinesis_url: str, new_name: Callable[[str], str]) -> Iterator[Bench]:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    client = boto3.client("kinesis", endpoint_url=kinesis_url, region_name=REGION, config=config)
    yield Bench(kinesis_url, client, new_name("faults"))
    admin(kinesis_url, "DELETE", "faults")
    client.close()


@pytest.mark.parametrize(
    ("kind", "operation", "code", "status"),
    [
        ("throttle", "PutRecords", "ProvisionedThroughputExceededException", 400),
        ("internal_error", "PutRecords", "InternalFailure", 500),
        ("unavailable", "PutRecords", "ServiceUnavailableException", 503),
    ],
)
def test_a_failed_put_has_no_effect_and_the_next_one_succeeds(
    bench: Bench, kind: str, operation: str, code: str, status: int
) -> None:
    bench.inject({"kind": kind, "operation": operation, "count": 1})
    with pytest.raises(ClientError) as failed:
        bench.put(b"first")
    assert failed.value.response["Error"]["Code"] == code
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    bench.put(b"second")
    assert bench.stored() == [b"second"]


def test_listing_is_throttled_by_its_own_error(bench: Bench) -> None:
    bench.inject({"kind": "throttle", "operation": "ListShards", "count": 1})
    with pytest.raises(ClientError) as failed:
        bench.client.list_shards(StreamName=bench.name)
    assert failed.value.response["Error"]["Code"] == "LimitExceededException"


def test_an_internal_error_after_the_effect_leaves_the_records_stored(bench: Bench) -> None:
    bench.inject({"kind": "internal_error_after_effect", "operation": "PutRecords", "count": 1})
    with pytest.raises(ClientError) as failed:
        bench.put(b"stored")
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert bench.stored() == [b"stored"]


def test_a_connection_dropped_before_the_effect_stores_nothing(bench: Bench) -> None:
    bench.inject({"kind": "drop_before", "operation": "PutRecords", "count": 1})
    with pytest.raises(ConnectionClosedError):
        bench.put(b"lost")
    assert bench.stored() == []


def test_a_connection_dropped_after_the_effect_leaves_the_records_stored(bench: Bench) -> None:
    bench.inject({"kind": "drop_after", "operation": "PutRecords", "count": 1})
    with pytest.raises(ConnectionClosedError):
        bench.put(b"stored")
    assert bench.stored() == [b"stored"]


def test_a_repeated_request_is_stored_twice_and_answered_once(bench: Bench) -> None:
    bench.inject({"kind": "repeat", "count": 1})
    bench.put(b"twice")
    bench.put(b"once")
    assert bench.stored() == [b"twice", b"twice", b"once"]


def test_a_delayed_request_arrives_late(bench: Bench) -> None:
    bench.inject({"kind": "delay", "operation": "PutRecords", "count": 1, "ms": 300})
    sent = datetime.now(UTC)
    bench.put(b"late")
    [record] = bench.client.get_records(ShardIterator=bench.iterator())["Records"]
    assert record["ApproximateArrivalTimestamp"] - sent >= timedelta(milliseconds=299)


def test_single_entries_fail_and_the_others_are_stored(bench: Bench) -> None:
    bench.inject(
        {
            "kind": "fail_entries",
            "operation": "PutRecords",
            "fraction": 0.3,
            "count": 1,
            "code": "InternalFailure",
        }
    )
    payloads = [b"%d" % i for i in range(10)]
    reply = bench.put(*payloads)
    failed = {i for i, result in enumerate(reply["Records"]) if result.get("ErrorCode") == "InternalFailure"}
    assert reply["FailedRecordCount"] == len(failed) == 3
    assert bench.stored() == [data for i, data in enumerate(payloads) if i not in failed]


def test_entries_of_one_request_can_be_stored_in_another_order(bench: Bench) -> None:
    bench.inject({"kind": "shuffle_entries", "count": 1})
    payloads = [b"%d" % i for i in range(20)]
    numbers = [int(result["SequenceNumber"]) for result in bench.put(*payloads)["Records"]]
    stored = bench.stored()
    assert sorted(stored) == sorted(payloads)
    assert stored != payloads
    assert stored == [data for _, data in sorted(zip(numbers, payloads, strict=True))]


def test_iterators_can_be_made_to_expire(bench: Bench) -> None:
    iterator = bench.iterator()
    bench.inject({"kind": "expire_iterators", "count": 1})
    with pytest.raises(ClientError) as expired:
        bench.client.get_records(ShardIterator=iterator)
    assert expired.value.response["Error"]["Code"] == "ExpiredIteratorException"
    bench.client.get_records(ShardIterator=iterator)


@pytest.mark.parametrize("skew_ms", [305_000, -305_000])
def test_a_peer_whose_clock_is_off_by_five_minutes_refuses_every_signature(bench: Bench, skew_ms: int) -> None:
    bench.inject({"kind": "clock_skew_ms", "ms": skew_ms})
    with pytest.raises(ClientError) as refused:
        bench.put(b"x")
    assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"


def test_a_skewed_clock_shows_in_date_header_and_arrival_times(bench: Bench) -> None:
    bench.inject({"kind": "clock_skew_ms", "ms": 60_000})
    headers = bench.put(b"x")["ResponseMetadata"]["HTTPHeaders"]
    ahead = datetime.now(UTC) + timedelta(seconds=50)
    assert datetime.strptime(headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC) > ahead
    [record] = bench.client.get_records(ShardIterator=bench.iterator())["Records"]
    assert record["ApproximateArrivalTimestamp"] > ahead


def test_a_clearing_ends_the_faults_of_a_stream_and_strikes_are_counted(bench: Bench) -> None:
    before = admin(bench.url, "GET", "stats")["strikes"].get("throttle", 0)
    bench.inject({"kind": "throttle", "operation": "PutRecords"})
    with pytest.raises(ClientError):
        bench.put(b"x")
    admin(bench.url, "DELETE", f"faults?stream={bench.name}")
    bench.put(b"y")
    assert admin(bench.url, "GET", "stats")["strikes"]["throttle"] == before + 1


def test_a_rule_that_is_no_rule_is_refused(bench: Bench) -> None:
    for rules in ([{"kind": "unheard_of"}], [{"kind": "delay", "seconds": 1}], {"kind": "delay"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            admin(bench.url, "POST", "faults", rules)
        assert refused.value.code == 400
        refused.value.close()
