"""Reading a hub with boto3, from its beginning, closed shards included, parents before children."""

from collections.abc import Sequence
from typing import TypedDict

from replicator.dev.checker import Hub, Stored
from replicator.dev.checker_unpacking import contents
from replicator.dev.clients import kinesis_client

READ_MAX = 10_000


class _Shard(TypedDict, total=False):
    ShardId: str
    ParentShardId: str
    AdjacentParentShardId: str


class HubReader:
    """Follows one stream. Its methods block and are not thread-safe: one thread at a time."""

    def __init__(self, url: str, region: str, stream: str) -> None:
        self._client = kinesis_client(url, region, retries={"mode": "standard", "max_attempts": 8})
        self._stream = stream
        self._iterators: dict[str, str | None] = {}
        self._last: dict[str, str] = {}
        """The sequence number of the last record read, by shard."""
        self._read: dict[str, list[Stored]] = {}

    def poll(self) -> list[Stored]:
        """What came since the last call, up to the tip of every shard."""
        return [stored for shard in self._shards() for stored in self._poll_shard(shard)]

    def hub(self) -> Hub:
        """Everything read so far."""
        return list(self._read.values())

    def close(self) -> None:
        self._client.close()

    def _shards(self) -> list[str]:
        listed: list[_Shard] = []
        arguments = {"StreamName": self._stream}
        while True:
            reply = self._client.list_shards(**arguments)
            listed += reply["Shards"]
            if "NextToken" not in reply:
                return parents_first(listed)
            arguments = {"NextToken": reply["NextToken"]}

    def _poll_shard(self, shard: str) -> list[Stored]:
        if shard not in self._iterators:
            self._iterators[shard] = self._iterator(shard)
            self._read[shard] = []
        new: list[Stored] = []
        while (iterator := self._iterators[shard]) is not None:
            try:
                reply = self._client.get_records(ShardIterator=iterator, Limit=READ_MAX)
            except self._client.exceptions.ExpiredIteratorException:
                self._iterators[shard] = self._iterator(shard)
                continue
            self._iterators[shard] = reply.get("NextShardIterator")
            for record in reply["Records"]:
                self._last[shard] = record["SequenceNumber"]
                new += [Stored(data, key) for data, key in contents(record["Data"], record["PartitionKey"])]
            if reply["MillisBehindLatest"] == 0:
                break
        self._read[shard] += new
        return new

    def _iterator(self, shard: str) -> str:
        """Behind the last record read, else at the beginning."""
        last = self._last.get(shard)
        kind = "TRIM_HORIZON" if last is None else "AFTER_SEQUENCE_NUMBER"
        more = {} if last is None else {"StartingSequenceNumber": last}
        reply = self._client.get_shard_iterator(StreamName=self._stream, ShardId=shard, ShardIteratorType=kind, **more)
        return str(reply["ShardIterator"])


def parents_first(shards: Sequence[_Shard]) -> list[str]:
    """Shard ids so that every parent that is still listed comes before its children."""
    waiting = {shard["ShardId"]: _parents(shard) for shard in shards}
    ordered: list[str] = []
    while waiting:
        free = [shard for shard, parents in waiting.items() if not parents & waiting.keys()]
        ordered += free
        for shard in free:
            del waiting[shard]
    return ordered


def _parents(shard: _Shard) -> set[str]:
    return {shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard}


def read_hub(url: str, region: str, stream: str) -> Hub:
    """The whole hub as it stands now."""
    reader = HubReader(url, region, stream)
    try:
        reader.poll()
        return reader.hub()
    finally:
        reader.close()
