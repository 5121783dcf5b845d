"""Large events over a chain of three regions, with the workers of the first one killed: each arrives once, whole."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, Trial, trial

from replicator.claim_check import pointer_of, verified
from replicator.dev.clients import kinesis_client

pytestmark = pytest.mark.slow

EVENTS = {f"e-{n}": json.dumps({"id": f"e-{n}", "n": n, "body": "é" * (3000 * (n % 2))}).encode() for n in range(60)}
KEYS = 3


def put(running: Trial, numbers: range) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    for number in numbers:
        data = EVENTS[f"e-{number}"]
        client.put_record(StreamName=running.stream, PartitionKey=f"k{number % KEYS}", Data=data)
    client.close()


async def arrived(running: Trial, events: int, *regions: str) -> None:
    """Until so many are in the hubs of these regions."""
    readers = [running.readers[region] for region in regions]
    async with asyncio.timeout(DEADLINE_S):
        while any(sum(map(len, reader.hub())) < events for reader in readers):
            running.environment.check()
            for reader in readers:
                await asyncio.to_thread(reader.poll)
            await asyncio.sleep(POLL_S)


def resolved(running: Trial, data: bytes) -> bytes:
    """As a consumer does it."""
    pointer = pointer_of(data)
    if pointer is None:
        return data
    url: Any = running.environment.regions[pointer.region].ready.aws
    s3 = boto3.client("s3", region_name=pointer.region, endpoint_url=url)
    return verified(pointer, s3.get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"].read())


async def test_large_events_arrive_once_and_whole_behind_a_relay_too(tmp_path: Path) -> None:
    regions = (EAST, WEST, SOUTH)
    async with trial(tmp_path, regions=regions, topology="chain", workers=1, claim_check=True) as running:
        await asyncio.to_thread(put, running, range(30))
        await arrived(running, 10, WEST)
        [worker] = running.environment.workers(EAST)
        worker.kill()
        await running.environment.flush_redis(EAST)
        await asyncio.to_thread(put, running, range(30, 60))
        await worker.start()
        await arrived(running, len(EVENTS), WEST, SOUTH)
        readers = {region: running.readers[region] for region in (WEST, SOUTH)}
        hubs = {region: [record for shard in reader.hub() for record in shard] for region, reader in readers.items()}
        bodies = {
            record.data: await asyncio.to_thread(resolved, running, record.data)
            for hub in hubs.values()
            for record in hub
        }
        assert running.environment.quarantined() == 0
    for hub in hubs.values():
        assert Counter(json.loads(record.data)["id"] for record in hub) == Counter(list(EVENTS))
        order: defaultdict[str, list[int]] = defaultdict(list)
        for record in hub:
            event = json.loads(bodies[record.data])
            event.pop("_replicator", None)
            assert event == json.loads(EVENTS[event["id"]])
            is_large = event["n"] % 2 == 1
            assert (pointer_of(record.data) is not None) == is_large
            assert bodies[record.data] == EVENTS[event["id"]] or not is_large
            order[record.partition_key].append(event["n"])
        assert all(numbers == sorted(numbers) for numbers in order.values())
    pointers = [Counter(pointer_of(record.data) for record in hub) for hub in hubs.values()]
    assert pointers[0] == pointers[1], "a relay passes pointers on as they are"
