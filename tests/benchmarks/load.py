"""Events for benchmarks, and the streams they go through."""

import json
import random
import time
import urllib.request
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import accumulate, islice
from typing import Literal

import msgspec
import pybase64
from msgspec import Struct

from replicator.dev.clients import kinesis_client
from tests.benchmarks.raw import RawKinesis

REQUEST_MAX = 500
REQUEST_BYTES_MAX = 4_000_000
KEYS_PER_SHARD = 2_500
ZIPF_KEYS = 10_000
_ZIPF = list(accumulate(1 / rank for rank in range(1, ZIPF_KEYS + 1)))
ITEM = {"sku": "A-10{:02}", "name": "enamel mug, 300 ml", "quantity": 2, "price": 19.9, "gift": False}

Shape = Literal["order", "text"]
"""``order``: as many items as fit, some 17 values in 1 KB. ``text``: one long string, which parsers pass at once."""


class RegionStats(Struct):
    """What an endpoint says of itself; ``cpu_s`` of its whole process."""

    requests: dict[str, int]
    streams: dict[str, dict[str, int]]
    cpu_s: float


class _Numbered(Struct):
    id: str


def event(number: int, size_bytes: int, shape: Shape = "order") -> bytes:
    """Compact JSON of exactly that size (of what its frame takes, when that is more)."""
    head = f'{{"id":"e-{number}","type":"order-placed","timestamp":{1_700_000_000_000 + number},"payload":{{'
    items = _items(size_bytes - 140) if shape == "order" else ""
    head = f'{head}"customer":"c-{number % 977}","currency":"EUR","items":[{items}],"note":"'
    return f'{head}{"x" * (size_bytes - len(head) - 3)}"}}}}'.encode()


@cache
def _items(size_bytes: int) -> str:
    """As many as fit, separated."""
    length = len(_item(0)) + 1
    return ",".join(_item(number) for number in range(max(0, size_bytes // length)))


def _item(number: int) -> str:
    return json.dumps({**ITEM, "sku": str(ITEM["sku"]).format(number % 100)}, separators=(",", ":"))


def spread_keys(shards: int) -> Callable[[int], str]:
    """As many for each shard, so that what a shard's lanes hold does not depend on how many shards there are."""
    keys = KEYS_PER_SHARD * shards
    return lambda number: f"k{number % keys}"


_spread_over_two = spread_keys(2)


def zipf_keys(seed: int) -> Callable[[int], str]:
    """Keys by Zipf's law: the most frequent of 10,000 has every tenth event."""
    rng = random.Random(seed)
    return lambda _: f"k{bisect(_ZIPF, rng.random() * _ZIPF[-1])}"


def put_bodies(
    stream: str,
    numbers: range,
    size_bytes: int,
    *,
    key: Callable[[int], str] = _spread_over_two,
    shape: Shape = "order",
    request_max: int = REQUEST_MAX,
) -> Iterator[bytes]:
    """PutRecords bodies with all these events, in order, at most so many in each."""
    chunk = max(1, min(request_max, REQUEST_BYTES_MAX // (size_bytes + 100)))
    pairs = ((event(number, size_bytes, shape), key(number)) for number in numbers)
    return put_entries(stream, pairs, chunk)


def put_entries(stream: str, pairs: Iterable[tuple[bytes, str]], request_max: int = REQUEST_MAX) -> Iterator[bytes]:
    """PutRecords bodies with all this data under these keys, in order, so many in each."""
    rest = iter(pairs)
    while part := list(islice(rest, request_max)):
        entries = ",".join(_entry(data, key) for data, key in part)
        yield f'{{"StreamName":"{stream}","Records":[{entries}]}}'.encode()


def _entry(data: bytes, key: str) -> str:
    return f'{{"Data":"{pybase64.b64encode_as_string(data)}","PartitionKey":"{key}"}}'


def put_paced(url: str, region: str, bodies: Iterator[bytes], every_s: float) -> None:
    """One body in every period; late ones follow at once, so that the rate stays."""
    with RawKinesis(url, region) as kinesis:
        due_s = time.monotonic()
        for body in bodies:
            time.sleep(max(0.0, due_s - time.monotonic()))
            kinesis.put(body)
            due_s += every_s


def put_events(url: str, region: str, bodies: Iterator[bytes]) -> None:
    with RawKinesis(url, region) as kinesis:
        for body in bodies:
            kinesis.put(body)


def make_stream(url: str, region: str, stream: str, shards: int) -> None:
    client = kinesis_client(url, region)
    client.create_stream(StreamName=stream, ShardCount=shards)
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    client.close()


def delete_stream(url: str, region: str, stream: str) -> None:
    with RawKinesis(url, region) as kinesis:
        kinesis.call("DeleteStream", msgspec.json.encode({"StreamName": stream}))


def records_in(url: str, stream: str) -> int:
    """How many records were ever put, as the endpoint counts them."""
    return region_stats(url).streams[stream]["records_in"]


def region_stats(url: str) -> RegionStats:
    return msgspec.json.decode(_dev(url, "stats", "GET"), type=RegionStats)


def set_faults(url: str, rules: list[dict[str, object]]) -> None:
    """See `replicator.dev.kinesis_faults`; in place of all earlier ones."""
    _dev(url, "faults", "DELETE")
    _dev(url, "faults", "POST", msgspec.json.encode(rules))


def trim(url: str, stream: str) -> None:
    """Forget all that has arrived."""
    before_ms = time.time_ns() // 1_000_000
    _dev(url, "trim", "POST", msgspec.json.encode({"stream": stream, "before_ms": before_ms}))


def journal_begins(url: str, stream: str) -> None:
    _dev(url, f"journal?stream={stream}", "POST")


def journal_taken(url: str, stream: str) -> dict[str, dict[str, int]]:
    """See `replicator.dev.kinesis_journal`."""
    return msgspec.json.decode(_dev(url, f"journal?stream={stream}", "DELETE"), type=dict[str, dict[str, int]])


def event_ids(url: str, region: str, stream: str) -> dict[str, str]:
    """Of all that is in a stream, by sequence number."""
    with RawKinesis(url, region) as kinesis:
        return {
            record.sequence_number: msgspec.json.decode(record.data, type=_Numbered).id
            for shard in kinesis.shards(stream)
            for record in kinesis.records(stream, shard)
        }


def _dev(url: str, path: str, method: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"{url}/_dev/{path}", data=body, method=method)
    with urllib.request.urlopen(request) as reply:
        content: bytes = reply.read()
        return content
