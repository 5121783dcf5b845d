"""Replaying from a real lake over a real link, with the replay killed in the middle of it."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, WEST, Commands, Trial, trial

from replicator.adapters.lake_parquet import PARQUET
from replicator.core.lake import NDJSON, Archived, encode_line, objects_of
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName

pytestmark = pytest.mark.slow

LINK = f"orders:{WEST}"
SOURCE, SHARD = SourceName("orders"), ShardId("shardId-000000000000")
COUNT, OVERLAP = 400, 50
AT_MS = (int(time.time()) - 1800) * 1000


def archived(number: int) -> bytes:
    data = json.dumps({"id": f"e-{number}", "n": number, "type": "old"}).encode()
    born = Origin(Region(EAST), SOURCE, "17", SHARD, SequenceNumber(1000 + number))
    return encode_line(Archived(born, f"e-{number}", (), AT_MS, "17", SHARD, born.sequence, 0, f"k{number % 3}", data))


def fill_lake(running: Trial) -> None:
    """What an older hub held; its middle stands in two objects, and from there on the lake had another format."""
    url = running.environment.regions[EAST].ready.aws
    s3: Any = boto3.client("s3", region_name=EAST, endpoint_url=url)
    middle = COUNT // 2
    for lake_format, numbers in ((NDJSON, range(middle + OVERLAP)), (PARQUET, range(middle, COUNT))):
        for held in objects_of(SOURCE, map(archived, numbers), lake_format):
            s3.put_object(Bucket=f"orders-lake-{EAST}", Key=f"lake/{held.name}", Body=held.body())


def replays_of(running: Trial, workdir: Path) -> Commands:
    since, until = [datetime.fromtimestamp(AT_MS / 1000 + s, UTC).isoformat() for s in (-60, 60)]
    chosen = ["--from", "lake", "--link", LINK, "--since", since, "--until", until]
    return Commands(running, workdir, "replay", "--region", EAST, *chosen)


def arrived(running: Trial) -> list[int]:
    [shard] = running.readers[WEST].hub()
    return [json.loads(stored.data)["n"] for stored in shard]


def replay_ids(running: Trial) -> set[str | None]:
    [shard] = running.readers[WEST].hub()
    return {json.loads(stored.data)["_replicator"].get("replay") for stored in shard}


async def test_what_the_lake_keeps_goes_over_a_link_once_and_in_order_though_the_replay_dies(tmp_path: Path) -> None:
    async with trial(tmp_path, shards=1, workers=1, lake=True) as running:
        await asyncio.to_thread(fill_lake, running)
        replays = replays_of(running, tmp_path)
        dry = await replays.done("dry", "--dry-run")
        other = await replays.done("other", "--type", "new")
        killed = replays.start("killed", "--rate", "100")
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(running.readers[WEST].poll):
                await asyncio.sleep(0.01)
        killed.kill()
        await asyncio.to_thread(running.readers[WEST].poll)
        before = len(arrived(running))
        resumed = await replays.done("resumed")
        again = await replays.done("again")
        await asyncio.to_thread(running.readers[WEST].poll)
        events = arrived(running)
        [replay_id] = replay_ids(running)
    assert dry[0] == 0
    assert f"{COUNT} events of the lake would go to {LINK}" in dry[1]
    assert f"0 events of the lake over {LINK}: 0 sent" in other[1]
    assert "this run found no event of type new in the lake between --since and --until" in other[1]
    assert 0 < before < COUNT
    assert resumed[0] == 0
    assert f"{COUNT} events of the lake over {LINK}: " in resumed[1]
    told = re.search(r"(?:(\d+) done in an earlier run, )?(\d+) sent, (\d+) were there, none poison", resumed[1])
    assert told
    assert sum(map(int, told.groups("0"))) == COUNT
    assert (again[0], "was replayed" in again[1]) == (1, True)
    assert sorted(events) == list(range(COUNT))
    assert replay_id, "the one that was killed and the one that went on are one replay"
    for key in range(3):
        numbers = [number for number in events if number % 3 == key]
        assert numbers == sorted(numbers)
