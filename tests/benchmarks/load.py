"""Events for benchmarks, and the streams they go through."""

import json
import random
import urllib.request
from bisect import bisect
from itertools import accumulate

import msgspec
from msgspec import Struct

from replicator.dev.clients import kinesis_client

REQUEST_MAX = 500
REQUEST_BYTES_MAX = 4_000_000
ZIPF_KEYS = 10_000
_ZIPF = list(accumulate(1 / rank for rank in range(1, ZIPF_KEYS + 1)))


class _Stats(Struct):
    streams: dict[str, dict[str, int]]
    cpu_s: float


def event(number: int, size_bytes: int) -> bytes:
    body = {"id": f"e-{number}", "type": "order-placed", "timestamp": 1_700_000_000_000 + number, "payload": ""}
    body["payload"] = "x" * max(0, size_bytes - len(json.dumps(body)))
    return json.dumps(body).encode()


def spread_key(number: int) -> str:
    return f"k{number % 5_000}"


def zipf_key(rng: random.Random) -> str:
    return f"k{bisect(_ZIPF, rng.random() * _ZIPF[-1])}"


def make_stream(url: str, region: str, stream: str, shards: int) -> None:
    client = kinesis_client(url, region)
    client.create_stream(StreamName=stream, ShardCount=shards)
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    client.close()


def put_events(url: str, region: str, stream: str, numbers: range, size_bytes: int) -> None:
    client = kinesis_client(url, region)
    chunk = max(1, min(REQUEST_MAX, REQUEST_BYTES_MAX // (size_bytes + 100)))
    for start in range(numbers.start, numbers.stop, chunk):
        part = range(start, min(start + chunk, numbers.stop))
        records = [{"Data": event(number, size_bytes), "PartitionKey": spread_key(number)} for number in part]
        reply = client.put_records(StreamName=stream, Records=records)
        assert reply["FailedRecordCount"] == 0
    client.close()


def records_in(url: str, stream: str) -> int:
    """How many records were ever put, as the endpoint counts them."""
    return _stats(url).streams[stream]["records_in"]


def endpoint_cpu_s(url: str) -> float:
    return _stats(url).cpu_s


def _stats(url: str) -> _Stats:
    with urllib.request.urlopen(f"{url}/_dev/stats") as reply:
        return msgspec.json.decode(reply.read(), type=_Stats)
