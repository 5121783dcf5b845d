"""What can happen to a stream beyond the faults of a put, in memory and on the Kinesis endpoint alike."""

from streams import InMemory, OverHttp, Stream

from replicator.adapters.memory_stream import Operation
from replicator.core.model import Record, ShardId, TrimHorizon
from replicator.errors import TransientError
from replicator.ports import Entry, Page

FIRST = ShardId("shardId-000000000000")


def recreate(stream: Stream) -> None:
    """Delete the stream and make it anew with one shard."""
    if isinstance(stream, InMemory):
        stream._stream.recreate()
        return
    assert isinstance(stream, OverHttp)
    stream._client.delete_stream(StreamName=stream._name)
    stream._client.create_stream(StreamName=stream._name, ShardCount=1)


def expire_iterators(stream: Stream) -> None:
    """Those handed out so far; in memory none ever expires."""
    if not isinstance(stream, InMemory):
        _next_read(stream, "expire_iterators")


def throttle_next_read(stream: Stream) -> None:
    if not isinstance(stream, InMemory):
        _next_read(stream, "throttle")
        return
    memory = stream._stream

    async def before(operation: Operation) -> None:
        if operation == "read":
            memory.before = None
            raise TransientError("injected", code="throttled")

    memory.before = before


def _next_read(stream: Stream, kind: str) -> None:
    assert isinstance(stream, OverHttp)
    rule = {"operation": "GetRecords", "stream": stream._name, "kind": kind, "count": 1}
    stream._admin("faults", [rule])


async def children_of(stream: Stream, *parents: ShardId) -> list[ShardId]:
    return [shard.id for shard in await stream.source.shards() if set(shard.parents) == set(parents)]


async def first_page(stream: Stream, shard: ShardId = FIRST, records_max: int = 10_000) -> Page:
    return await stream.source.read(await stream.source.open(shard, TrimHorizon()), records_max)


async def all_records(stream: Stream) -> list[Record]:
    """In the order of the shards; a page takes all that a test puts into one."""
    return [record for shard in await stream.source.shards() for record in (await first_page(stream, shard.id)).records]


def numbered(count: int, start: int = 0) -> list[Entry]:
    """Distinct keys, so that they spread over the shards."""
    return [Entry(b"%d" % number, f"key-{number}") for number in range(start, start + count)]
