"""Redriving from a real quarantine over a real link, with the redrive killed in the middle of it."""

import asyncio
import json
from pathlib import Path

import pytest
from trial import DEADLINE_S, EAST, WEST, Commands, Trial, trial

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.core.model import LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.quarantine_document import Quarantined

pytestmark = pytest.mark.slow

LINK = LinkName(f"orders:{WEST}")
COUNT = 400


def put_away(number: int, data: bytes | None = None) -> Quarantined:
    origin = Origin(Region(EAST), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(1000 + number))
    body = json.dumps({"id": f"e-{number}", "n": number}).encode()
    return Quarantined(LINK, "refused_by_peer", "", origin, f"k{number % 3}", data or body, 1, 1_700_000_000_000)


def arrived(running: Trial) -> list[dict[str, object]]:
    [shard] = running.readers[WEST].hub()
    return [json.loads(stored.data) for stored in shard]


async def test_what_is_put_away_goes_over_its_link_once_and_in_order_though_the_redrive_dies(tmp_path: Path) -> None:
    async with trial(tmp_path, shards=1, workers=1) as running:
        directory = running.environment.quarantine / EAST
        quarantine = FileQuarantine(directory)
        for number in range(COUNT):
            await quarantine.put(put_away(number))
        await quarantine.put(put_away(COUNT, b"\xff still poison"))
        redrives = Commands(running, tmp_path, "quarantine", "redrive", "--region", EAST, "--link", LINK)

        dry = redrives.start("dry", "--dry-run")
        assert await dry.ended() == 0
        assert f"{COUNT + 1} documents of {LINK} would be redriven" in dry.log.read_text()

        killed = redrives.start("killed")
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(running.readers[WEST].poll):
                await asyncio.sleep(0.01)
        killed.kill()
        assert len(await quarantine.names(LINK)) > 1
        again = redrives.start("again")
        async with asyncio.timeout(DEADLINE_S):
            assert await again.ended() == 1
        said = again.log.read_text()
        left = await quarantine.names(LINK)
        kept = await quarantine.load(left[0])
        await asyncio.to_thread(running.readers[WEST].poll)
        events = arrived(running)
    assert "1 not_json still poison" in said
    assert (len(left), kept.data) == (1, b"\xff still poison")
    assert sorted(event["n"] for event in events) == list(range(COUNT))  # type: ignore[type-var] - numbers
    for key in range(3):
        numbers = [event["n"] for event in events if int(str(event["n"])) % 3 == key]
        assert numbers == sorted(numbers)  # type: ignore[type-var] - numbers
    tags = [event["_replicator"] for event in events]
    assert {tuple(tag["origin"][:4]) for tag in tags} == {(EAST, "orders", "17", "shardId-0")}  # type: ignore[index] - JSON
    assert {tag["origin"][4] for tag in tags} == {str(1000 + n) for n in range(COUNT)}  # type: ignore[index] - JSON
