"""A stream that has forgotten, continued from a lake in S3: everything once, in order, under the stream's positions."""

import time
from collections.abc import Callable, Sequence

import pytest

from replicator.adapters.lake_s3 import S3Lake, S3LakeReader
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.aws.session import AwsSession
from replicator.core.lake import HOUR_MS, Archived, encode_line
from replicator.core.model import (
    After,
    AtTimestamp,
    Origin,
    Position,
    Record,
    Region,
    SequenceNumber,
    ShardEnd,
    ShardId,
    SourceName,
)
from replicator.errors import StoreUnavailable
from replicator.ports import Cursor, Entry
from replicator.worker.continued import ContinuedSource, Readings
from replicator.worker.lake_shard import HubLake, ShardInLake
from replicator.worker.retention import Retention

SOURCE, SHARD = SourceName("orders"), ShardId("shardId-000000000000")
EAST, WEST = Region("us-east-1"), Region("eu-west-1")
RETENTION_MS = 24 * HOUR_MS
BEGAN_MS = 1_700_000_000_000
EVERY_MS = 20 * 60_000
COUNT = 90


class Ageing:
    """Implements `ports.Clock`. A record is written every 20 minutes, every third of them born in the other region."""

    def __init__(self) -> None:
        self.ms = BEGAN_MS
        self.stream = MemoryStream(self.now_ms, retention_ms=RETENTION_MS)
        self.sequences: list[SequenceNumber] = []
        self.lines: list[Entry] = []
        for number in range(COUNT):
            self.ms += EVERY_MS
            self.sequences.append(self.stream.store(Entry(b"%d" % number, "k")))
            self.lines.append(self._line(number))

    def now_ms(self) -> int:
        return self.ms

    @staticmethod
    async def begun() -> int:
        return BEGAN_MS

    async def retention(self) -> Retention:
        retention = Retention(MemoryLeases(), SOURCE, self)
        await retention.note(RETENTION_MS)
        return retention

    def _line(self, number: int) -> Entry:
        incarnation, sequence = str(self.stream.created_ms), self.sequences[-1]
        origin = Origin(WEST if number % 3 == 0 else EAST, SOURCE, incarnation, SHARD, sequence)
        event = Archived(origin, f"e{number}", (), self.ms, incarnation, SHARD, sequence, 0, "k", b"%d" % number)
        return Entry(encode_line(event), "k")


async def read(source: ContinuedSource, position: Position) -> list[Record]:
    cursor: Cursor | None = await source.open(SHARD, position)
    records: list[Record] = []
    while cursor is not None:
        page = await source.read(cursor, 7)
        records += page.records
        if not page.records and page.behind_ms == 0:
            break
        cursor = page.next
    return records


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.data) for record in records]


async def test_a_lake_in_s3_continues_a_stream_from_any_position_and_hands_it_back(
    aws_url: str, new_name: Callable[[str], str]
) -> None:
    """Another shard's events and another incarnation of the stream are in the lake as well."""
    world, bucket = Ageing(), new_name("lake")
    kept = len(world.stream.page(SHARD, 0, COUNT)[0])
    watermark: Position = After(world.sequences[79])
    async with AwsSession().client("s3", EAST, aws_url) as client:
        await client.create_bucket(Bucket=bucket)
        lake = S3Lake(client, bucket, "events/", SOURCE, 8 * 1024 * 1024)
        for begin in range(0, 80, 8):
            await lake.put(world.lines[begin : begin + 8])
        other = [line.data.replace(b"shardId-000000000000", b"shardId-000000000001") for line in world.lines]
        former = [line.data.replace(str(world.stream.created_ms).encode(), b"17") for line in world.lines]
        await lake.put([Entry(line, "k") for line in (*other, *former)])
        source = ContinuedSource(
            MemorySource(world.stream),
            ShardInLake(
                HubLake(S3LakeReader(client, bucket, "events/", [], listed_max=3), SOURCE, (EAST, WEST)),
                str(world.stream.created_ms),
                SHARD,
                world.now_ms,
            ),
            Readings(),
            archived=lambda: watermark,
            archived_from=world.begun,
            retention=await world.retention(),
            clock=world,
        )
        found = await read(source, After(world.sequences[9]))
        since = await read(source, AtTimestamp(BEGAN_MS + 5 * EVERY_MS))
        tail = await read(source, After(world.sequences[85]))
        world.stream.split(SHARD)
        world.ms += 2 * RETENTION_MS
        watermark = ShardEnd()
        await lake.put(world.lines[80:])
        gone = await read(source, After(world.sequences[70]))
    assert 0 < kept < COUNT - 10
    assert [record.sequence for record in found] == world.sequences[10:]
    assert numbers(found) == list(range(10, COUNT))
    assert numbers(since) == list(range(4, COUNT))
    assert numbers(tail) == list(range(86, COUNT))
    assert numbers(gone) == list(range(71, COUNT))
    assert not any(source.has_hole(After(sequence)) for sequence in world.sequences)
    assert not source.has_hole(AtTimestamp(BEGAN_MS + 5 * EVERY_MS))


async def test_a_lake_that_is_not_there_is_unavailable_and_asked_again(aws_url: str) -> None:
    world = Ageing()
    async with AwsSession().client("s3", EAST, aws_url) as client:
        lake = HubLake(S3LakeReader(client, f"none-{time.time_ns()}", "", []), SOURCE, (EAST,))
        source = ContinuedSource(
            MemorySource(world.stream),
            ShardInLake(lake, str(world.stream.created_ms), SHARD, world.now_ms),
            Readings(),
            archived=lambda: After(world.sequences[-1]),
            archived_from=world.begun,
            retention=await world.retention(),
            clock=world,
        )
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="lake s3://none-"):
                await read(source, After(world.sequences[0]))
