"""Replaying from a real stream over a real link, with a split in the time and the replay killed in the middle of it."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from trial import DEADLINE_S, EAST, WEST, Commands, Trial, trial

from replicator.dev.clients import kinesis_client

pytestmark = pytest.mark.slow

LINK = f"orders:{WEST}"
KEYS = 10
BEFORE, AFTER = range(120), range(120, 420)
"""What workers replicate before they die; and what comes then, behind a split."""


def put(running: Trial, numbers: Sequence[int]) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    for number in numbers:
        data = json.dumps({"id": f"e-{number}", "n": number}).encode()
        client.put_record(StreamName=running.stream, PartitionKey=f"k{number % KEYS}", Data=data)
    client.close()


def split(running: Trial) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    middle_of_first = str(2**126)
    client.split_shard(
        StreamName=running.stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=middle_of_first
    )
    client.close()


async def until(running: Trial, is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.to_thread(running.readers[WEST].poll)
            running.environment.check()
            await asyncio.sleep(0.02)


def stored(running: Trial) -> list[dict[str, Any]]:
    """In the peer, shard by shard."""
    return [json.loads(each.data) for shard in running.readers[WEST].hub() for each in shard]


def replays_of(running: Trial, workdir: Path, since_s: float, until_s: float) -> Commands:
    since, end = [datetime.fromtimestamp(s, UTC).isoformat() for s in (since_s, until_s)]
    chosen = ["--from", "stream", "--link", LINK, "--since", since, "--until", end, "--reads", "5"]
    return Commands(running, workdir, "replay", "--region", EAST, *chosen)


async def test_what_the_stream_keeps_goes_over_a_link_once_and_in_order_though_shards_split_and_the_replay_dies(
    tmp_path: Path,
) -> None:
    since_s = time.time() - 60
    async with trial(tmp_path, shards=2, workers=1, clock_margin_s=1) as running:
        await asyncio.to_thread(put, running, BEFORE)
        await until(running, lambda: len(stored(running)) == len(BEFORE))
        running.environment.workers(EAST)[0].kill()
        await asyncio.to_thread(split, running)
        await asyncio.to_thread(put, running, AFTER)
        # The last event may have come in this millisecond, which is the first that is not chosen.
        replays = replays_of(running, tmp_path, since_s, time.time() + 0.002)
        dry = await replays.done("dry", "--dry-run")
        killed = replays.start("killed", "--rate", "100")
        await until(running, lambda: len(stored(running)) > len(BEFORE))
        killed.kill()
        await asyncio.to_thread(running.readers[WEST].poll)
        sent_by_killed = len(stored(running)) - len(BEFORE)
        resumed = await replays.done("resumed")
        again = await replays.done("again")
        await asyncio.to_thread(running.readers[EAST].poll)
        await asyncio.to_thread(running.readers[WEST].poll)
        hub = [json.loads(each.data)["n"] for shard in running.readers[EAST].hub() for each in shard]
        events = stored(running)
    total = len(BEFORE) + len(AFTER)
    assert dry[0] == 0
    assert f"{total} events of the stream would go to {LINK}" in dry[1]
    assert 0 < sent_by_killed < len(AFTER)
    assert resumed[0] == 0, resumed[1]
    assert f"events of the stream over {LINK}: {len(AFTER) - sent_by_killed} sent, " in resumed[1]
    assert (again[0], "was replayed" in again[1]) == (1, True)
    numbers = [event["n"] for event in events]
    assert sorted(numbers) == sorted(hub) == list(range(total))
    for key in range(KEYS):
        of_key = [number for number in numbers if number % KEYS == key]
        assert of_key == sorted(of_key)
    replays_of_after = {event["_replicator"].get("replay") for event in events if event["n"] in AFTER}
    assert len(replays_of_after) == 1
    assert {event["_replicator"].get("replay") for event in events if event["n"] in BEFORE} == {None}
    assert None not in replays_of_after
    born_in = {tuple(event["_replicator"]["origin"][:2]) for event in events}
    assert born_in == {(EAST, "orders")}
    assert len({event["_replicator"]["origin"][3] for event in events}) == 4, "a parent, its children and another shard"
