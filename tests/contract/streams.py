"""One face for a stream in memory and one behind the Kinesis endpoint, so that a suite can drive both."""

import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import boto3
from quiet_wire import quiet_wire

from replicator.adapters.kinesis_sink import KinesisSink
from replicator.adapters.kinesis_source import KinesisSource
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.kinesis_reading import Pace
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.core.model import SequenceNumber, ShardId
from replicator.errors import InDoubt, TransientError
from replicator.ports import Entry, Sink, Source
from tests.simulation.ports import Hub, WireSink, WireSource

REGION = "us-east-1"
WINDOW_S = 300.0
"""For so long AWS takes a signature."""


def now_ms() -> int:
    return int(time.time() * 1000)


class Stream(Protocol):
    """What the suites need besides the ports."""

    source: Source
    sink: Sink

    def put(self, key: str, data: bytes) -> None: ...
    def split(self, shard: ShardId) -> None: ...
    def merge(self, left: ShardId, right: ShardId) -> None: ...
    def trim(self, shard: ShardId, through: SequenceNumber) -> None: ...
    def fault(self, kind: str) -> None: ...


class InMemory:
    def __init__(self, shards: int) -> None:
        self._stream = MemoryStream(now_ms, shards)
        self.source: Source = MemorySource(self._stream)
        self.sink: Sink = MemorySink(self._stream)

    def put(self, key: str, data: bytes) -> None:
        self._stream.store(Entry(data, key))

    def split(self, shard: ShardId) -> None:
        self._stream.split(shard)

    def merge(self, left: ShardId, right: ShardId) -> None:
        self._stream.merge(left, right)

    def trim(self, shard: ShardId, through: SequenceNumber) -> None:
        count = sum(record.sequence <= through for record in self._stream.records(shard))
        self._stream.trim(shard, count)

    def fault(self, kind: str) -> None:
        """The next put only."""

        def before(entries: Any) -> list[str | None] | None:
            self._stream.fault = None
            if kind == "throttle":
                raise TransientError("throttled", code="throttled")
            if kind == "fail_entries":
                return ["ProvisionedThroughputExceededException", *[None] * (len(entries) - 1)]
            return None

        def after(_: Any) -> None:
            self._stream.after_put = None
            if kind in {"drop_after", "internal_error_after_effect"}:
                raise InDoubt("the answer was lost", sent_ms=now_ms())

        self._stream.fault, self._stream.after_put = before, after


class Simulated(InMemory):
    """What the simulator's workers have of a stream."""

    def __init__(self, shards: int) -> None:
        super().__init__(shards)
        hub = Hub(now_ms, shards, lambda *_: None)
        self._stream = hub
        wire, limits = quiet_wire("stream"), MemorySink(hub).limits
        self.source = WireSource(hub, wire)
        self.sink = WireSink(hub, wire, limits, now_ms, WINDOW_S, b"", lambda _: None, "this")


class OverHttp:
    def __init__(self, url: str, name: str, api: KinesisApi) -> None:
        self._url = url
        self._name = name
        self._client: Any = boto3.client("kinesis", region_name=REGION, endpoint_url=url)
        self.source: Source = KinesisSource(api)
        self.sink: Sink = KinesisSink(api, read_back_pace=Pace(0.01))

    def put(self, key: str, data: bytes) -> None:
        self._client.put_record(StreamName=self._name, PartitionKey=key, Data=data)

    def split(self, shard: ShardId) -> None:
        [found] = [s for s in self._client.list_shards(StreamName=self._name)["Shards"] if s["ShardId"] == shard]
        span = found["HashKeyRange"]
        middle = (int(span["StartingHashKey"]) + int(span["EndingHashKey"]) + 1) // 2
        self._client.split_shard(StreamName=self._name, ShardToSplit=shard, NewStartingHashKey=str(middle))

    def merge(self, left: ShardId, right: ShardId) -> None:
        self._client.merge_shards(StreamName=self._name, ShardToMerge=left, AdjacentShardToMerge=right)

    def trim(self, shard: ShardId, through: SequenceNumber) -> None:
        self._admin("trim", {"stream": self._name, "shard": shard, "through_sequence": str(through)})

    def fault(self, kind: str) -> None:
        rule = {"operation": "PutRecords", "stream": self._name, "kind": kind, "count": 1}
        self._admin("faults", [rule | ({"fraction": 0.01} if kind == "fail_entries" else {})])

    def _admin(self, path: str, body: object) -> None:
        request = urllib.request.Request(
            f"{self._url}/_dev/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            reply.read()


@asynccontextmanager
async def open_stream(kind: str, shards: int, url: str, new_name: Callable[[str], str]) -> AsyncIterator[Stream]:
    if kind == "memory":
        yield InMemory(shards)
        return
    if kind == "simulated":
        yield Simulated(shards)
        return
    name = new_name("stream")
    boto3.client("kinesis", region_name=REGION, endpoint_url=url).create_stream(StreamName=name, ShardCount=shards)
    async with HttpPool(8) as http:
        api = JsonApi(http, AwsSession(), service=SERVICE, region=REGION, url=url, prefix=PREFIX)
        yield OverHttp(url, name, KinesisApi(api, name, 5.0))
