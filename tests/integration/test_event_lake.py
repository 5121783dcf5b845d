"""The lakes of two regions end to end: what stands in each hub stands in its lake, whatever happens to workers.

The lake is read as anybody would: with gzip and json, or pyarrow, and none of our code.
"""

import asyncio
import base64
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet
import pytest
from trial import DEADLINE_S, EAST, POLL_S, WEST, Trial, trial

from replicator.dev.checker_unpacking import contents
from replicator.dev.clients import kinesis_client

pytestmark = pytest.mark.slow

Place = tuple[str, str, int]
"""Shard, sequence number, and which of the record's events."""


def hub_of(running: Trial, region: str) -> dict[Place, tuple[str, bytes]]:
    """Key and bytes of everything in the hub, read from the beginning."""
    client: Any = kinesis_client(running.environment.regions[region].ready.kinesis, region)
    found: dict[Place, tuple[str, bytes]] = {}
    for shard in client.list_shards(StreamName=running.stream)["Shards"]:
        name = shard["ShardId"]
        iterator = client.get_shard_iterator(StreamName=running.stream, ShardId=name, ShardIteratorType="TRIM_HORIZON")[
            "ShardIterator"
        ]
        while iterator is not None:
            reply = client.get_records(ShardIterator=iterator, Limit=10_000)
            for record in reply["Records"]:
                for sub, (data, key) in enumerate(contents(record["Data"], record["PartitionKey"])):
                    found[name, record["SequenceNumber"], sub] = (key, data)
            iterator = reply.get("NextShardIterator") if reply["Records"] or reply["MillisBehindLatest"] else None
    client.close()
    return found


class LakeReader:
    def __init__(self, running: Trial, region: str) -> None:
        url = running.environment.regions[region].ready.aws
        assert isinstance(url, str)
        self.s3: Any = boto3.client("s3", region_name=region, endpoint_url=url)
        self._bucket = f"orders-lake-{region}"
        self.objects: dict[str, list[dict[str, Any]]] = {}
        """Lines by name, as of the last `read`."""

    def read(self) -> dict[Place, tuple[str, bytes]]:
        """All events. An object that was read once is not read again: under a name are always the same events."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for each in page.get("Contents", []):
                name = each["Key"]
                if name not in self.objects:
                    body = self.s3.get_object(Bucket=self._bucket, Key=name)["Body"].read()
                    self.objects[name] = lines_of(name, body)
        return self.events()

    def events(self) -> dict[Place, tuple[str, bytes]]:
        """As of the last `read`, each once."""
        return {place(line): (line["key"], data(line)) for lines in self.objects.values() for line in lines}


def lines_of(name: str, body: bytes) -> list[dict[str, Any]]:
    if name.endswith(".ndjson.gz"):
        return [json.loads(line) for line in gzip.decompress(body).splitlines()]
    assert name.endswith(".parquet")
    rows = pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
    return [{**row, "origin": [row["origin_region"]]} for row in rows]


def place(line: dict[str, Any]) -> Place:
    return (line["shard"], line["seq"], line.get("sub", 0))


def data(line: dict[str, Any]) -> bytes:
    if isinstance(line.get("data"), bytes):
        return bytes(line["data"])
    return line["data"].encode() if "data" in line else base64.b64decode(line["data_base64"])


async def until(running: Trial, is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(is_so):
            running.environment.check()
            await asyncio.sleep(POLL_S)


@pytest.mark.parametrize(
    ("aggregate", "suffix"),
    [("none", "ndjson.gz"), ("kpl", "parquet")],
)
async def test_every_lake_holds_its_hub_byte_for_byte_though_workers_are_killed(
    tmp_path: Path, aggregate: str, suffix: str
) -> None:
    layout = {"aggregate": aggregate, "lake_format": suffix.partition(".")[0]}
    async with trial(tmp_path, workers=1, lake=True, **layout) as running:
        lakes = {region: LakeReader(running, region) for region in running.readers}

        async def kill_and_start() -> None:
            for region in running.readers:
                [worker] = running.environment.workers(region)
                worker.kill()
                await running.environment.flush_redis(region)
                await worker.start()

        await running.load_while(kill_and_start, kill_and_start, seconds=6.0)
        verdict = await running.verdict()
        hubs = {region: await asyncio.to_thread(hub_of, running, region) for region in running.readers}
        for region, lake in lakes.items():
            await until(running, lambda lake=lake, hub=hubs[region]: lake.read().keys() >= hub.keys())
        quarantined = running.environment.quarantined()
    assert verdict.lost == 0
    assert quarantined == 0
    for region, lake in lakes.items():
        assert lake.events() == hubs[region]
        for name, lines in lake.objects.items():
            assert [int(line["seq"]) for line in lines] == sorted(int(line["seq"]) for line in lines), name
            assert name.endswith(f".{suffix}")
            assert name.startswith(f"lake/orders/origin={lines[0]['origin'][0]}/date=")
            assert {line["origin"][0] for line in lines} == {lines[0]["origin"][0]}
            for line in lines:
                assert (line["path"] == []) == (line["origin"][0] == region)


async def test_a_lake_that_is_away_delays_no_peer_and_is_filled_without_a_hole_when_it_is_back(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1, lake=True) as running:
        lake = LakeReader(running, EAST)
        lake.s3.delete_bucket(Bucket="orders-lake-us-east-1")
        await running.load_while(seconds=2.0)
        verdict = await running.verdict()
        [worker] = running.environment.workers(EAST)
        status = await running.environment.status(worker)
        worker.kill()
        lake.s3.create_bucket(Bucket="orders-lake-us-east-1")
        await worker.start()
        hub = await asyncio.to_thread(hub_of, running, EAST)
        await until(running, lambda: lake.read().keys() >= hub.keys())
    assert verdict.lost == 0
    assert status is not None
    assert status.links["orders:lake"].state == "backing_off"
    assert status.links[f"orders:{WEST}"].state == "up"
    assert lake.events() == hub
