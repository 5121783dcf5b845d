"""What every lake promises: objects by origin and hour, all or nothing told, the same again without harm."""

import asyncio
import gzip
import io
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pyarrow.parquet
import pytest
from msgspec.structs import replace

from replicator.adapters.lake_parquet import PARQUET
from replicator.adapters.lake_s3 import S3Lake, S3LakeReader
from replicator.adapters.memory_lake import MemoryLake
from replicator.aws.session import AwsSession
from replicator.core.lake import NDJSON, Archived, LakeFormat, encode_line
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import Misconfigured, StoreUnavailable, TransientError
from replicator.ports import Entry, LakeReader, Sink, SinkLimits

SOURCE = SourceName("orders")
EAST, WEST = Region("us-east-1"), Region("eu-west-1")
HOUR_MS = 3_600_000
EVENT = Archived(
    Origin(EAST, SOURCE, "17", ShardId("shardId-0"), SequenceNumber(1)),
    "e",
    (),
    1_700_000_000_000,
    "17",
    ShardId("shardId-0"),
    SequenceNumber(1),
    0,
    "kéy",
    b"\xff\x00",
)
Stored = Callable[[], Awaitable[dict[str, bytes]]]
Sides = tuple[Sink, LakeReader, Stored]


def entry(number: int, region: Region = EAST, hours: int = 0) -> Entry:
    event = replace(
        EVENT,
        origin=replace(EVENT.origin, region=region),
        sequence=SequenceNumber(number),
        at_ms=EVENT.at_ms + hours * HOUR_MS,
    )
    return Entry(encode_line(event), event.partition_key)


def sequences(name: str, body: bytes) -> list[str]:
    """Of the events of an object, as anybody reads it."""
    if name.endswith(".parquet"):
        found: list[str] = pyarrow.parquet.read_table(io.BytesIO(body)).column("seq").to_pylist()
        return found
    assert name.endswith(".ndjson.gz")
    return [json.loads(line)["seq"] for line in gzip.decompress(body).splitlines()]


@pytest.fixture(
    params=[(adapter, name) for adapter in ("memory", "s3") for name in ("ndjson", "parquet")], ids="-".join
)
async def lake(request: pytest.FixtureRequest, new_name: Callable[[str], str]) -> AsyncIterator[Sides]:
    """What writes a lake, what reads it, and what is stored."""
    adapter, format_name = request.param
    lake_format = {"ndjson": NDJSON, "parquet": PARQUET}[format_name]
    if adapter == "memory":
        memory = MemoryLake(SOURCE, SinkLimits(5000, 8 * 1024 * 1024, 8 * 1024 * 1024), [PARQUET])
        memory.format = lake_format

        async def in_memory() -> dict[str, bytes]:
            return memory.objects

        yield memory, memory, in_memory
        return
    bucket = new_name("lake")
    async with AwsSession().client("s3", "us-east-1", request.getfixturevalue("aws_url")) as client:
        await client.create_bucket(Bucket=bucket)

        async def in_s3() -> dict[str, bytes]:
            listed: dict[str, Any] = await client.list_objects_v2(Bucket=bucket, Prefix="events/")
            found = {}
            for each in listed.get("Contents", []):
                reply = await client.get_object(Bucket=bucket, Key=each["Key"])
                found[each["Key"].removeprefix("events/")] = await reply["Body"].read()
            return found

        reader = S3LakeReader(client, bucket, "events/", [PARQUET], listed_max=2)
        yield S3Lake(client, bucket, "events/", SOURCE, 8 * 1024 * 1024, lake_format), reader, in_s3


@pytest.fixture
def case(lake: Sides) -> tuple[Sink, Stored]:
    return lake[0], lake[2]


async def test_events_of_several_origins_and_hours_are_objects_of_their_own(case: tuple[Sink, Stored]) -> None:
    lake, stored = case
    entries = [entry(1), entry(2, WEST), entry(3), entry(4, EAST, hours=1)]
    assert list(await lake.put(entries)) == [None] * 4
    found = await stored()
    numbers = {name.rpartition("/")[0]: sequences(name, body) for name, body in found.items()}
    assert numbers == {
        "orders/origin=us-east-1/date=2023-11-14/hour=22": ["1", "3"],
        "orders/origin=eu-west-1/date=2023-11-14/hour=22": ["2"],
        "orders/origin=us-east-1/date=2023-11-14/hour=23": ["4"],
    }


async def test_what_is_read_are_the_lines_as_they_were_given(lake: Sides) -> None:
    writer, reader, _ = lake
    entries = [entry(number) for number in range(3)]
    await writer.put(entries)
    [name] = await reader.names("")
    found = [encode_line(event) for event in await reader.events(name)]
    assert found == [each.data for each in entries]


async def test_put_again_the_lake_is_as_before(case: tuple[Sink, Stored]) -> None:
    lake, stored = case
    await lake.put([entry(1), entry(2)])
    before = dict(await stored())
    await lake.put([entry(1), entry(2)])
    assert await stored() == before


async def test_of_objects_that_are_put_at_once_one_after_the_other_is_packed(
    aws_url: str, new_name: Callable[[str], str]
) -> None:
    """Or the memory that packing takes would grow with the number of shards."""
    both = threading.Barrier(2)
    was_alone: list[bool] = []

    def pack(lines: Sequence[bytes]) -> bytes:
        try:
            both.wait(timeout=0.2)
        except threading.BrokenBarrierError:
            was_alone.append(True)
            both.reset()
        return b"".join(lines)

    bucket = new_name("lake")
    async with AwsSession().client("s3", "us-east-1", aws_url) as client:
        await client.create_bucket(Bucket=bucket)
        lake = S3Lake(client, bucket, "", SOURCE, 1024, LakeFormat(".x", "text/plain", pack, bytes.splitlines))
        await asyncio.gather(lake.put([entry(1)]), lake.put([entry(2)]))
        listed: dict[str, Any] = await client.list_objects_v2(Bucket=bucket)
    assert was_alone == [True, True]
    assert listed["KeyCount"] == 2


async def test_a_bucket_that_is_not_there_is_for_an_operator(aws_url: str) -> None:
    async with AwsSession().client("s3", "us-east-1", aws_url) as client:
        with pytest.raises(Misconfigured, match="no-such-lake") as caught:
            await S3Lake(client, "no-such-lake", "", SOURCE, 1024).put([entry(1)])
    assert caught.value.code == "NoSuchBucket"


async def test_a_lake_that_does_not_answer_is_asked_again() -> None:
    async with AwsSession().client("s3", "us-east-1", "http://127.0.0.1:9", timeout_s=1.0) as client:
        with pytest.raises(TransientError, match="lake s3://lake/") as caught:
            await S3Lake(client, "lake", "", SOURCE, 1024).put([entry(1)])
    assert not isinstance(caught.value, Misconfigured)


async def test_a_reader_finds_all_names_of_a_prefix_and_loads_what_was_put(lake: Sides) -> None:
    writer, reader, stored = lake
    for number in range(5):
        await writer.put([entry(number)])
    await writer.put([entry(9, WEST)])
    found = await stored()
    names = await reader.names("orders/origin=us-east-1/")
    assert sorted(names) == sorted(name for name in found if "us-east-1" in name)
    assert len(names) == 5
    for name in names:
        [event] = await reader.events(name)
        assert [str(event.sequence)] == sequences(name, found[name])
    assert list(await reader.names("payments/")) == []


async def test_an_object_that_is_not_there_is_unavailable_and_named(lake: Sides) -> None:
    with pytest.raises(StoreUnavailable, match="orders/gone"):
        await lake[1].events("orders/gone")
