"""A region that was away for longer than its peers' hubs keep events gets them from the lakes."""

import asyncio
import json
import re
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_event_lake import LakeReader, hub_of, until
from trial import EAST, SOUTH, WEST, Commands, Trial, trial

pytestmark = pytest.mark.slow

LINK = f"orders:{SOUTH}"
EACH = 500
"""Events that `Trial.load_while` writes in each region."""


def forget_all(running: Trial, region: str, *, but: int = 0) -> None:
    """The hub keeps nothing of what it holds ``but`` so many records a shard, as when its retention has passed."""
    url = running.environment.regions[region].ready.kinesis
    held: dict[str, list[int]] = {}
    for shard, sequence, _ in hub_of(running, region):
        held.setdefault(shard, []).append(int(sequence))
    for shard, sequences in held.items():
        through = sorted(sequences)[-1 - but]
        body = json.dumps({"stream": running.stream, "shard": shard, "through_sequence": str(through)}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/_dev/trim", body)) as reply:
            reply.read()


def ids_of(running: Trial, region: str) -> set[str]:
    return {json.loads(data)["id"] for _, data in hub_of(running, region).values()}


def bootstraps_of(running: Trial, workdir: Path, since_s: float) -> Commands:
    since, until_now = [datetime.fromtimestamp(s, UTC).isoformat() for s in (since_s, time.time())]
    return Commands(running, workdir, "bootstrap", SOUTH, "--since", since, "--until", until_now)


async def test_a_region_that_was_away_beyond_retention_is_rebuilt_from_the_lakes(tmp_path: Path) -> None:
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), workers=1, lake=True) as running:
        running.environment.kill_region(SOUTH)
        since_s = time.time() - 1
        await running.load_while(seconds=2.0)
        await until(running, lambda: ids_of(running, EAST) == ids_of(running, WEST))
        for region in (EAST, WEST):
            lake, hub = LakeReader(running, region), await asyncio.to_thread(hub_of, running, region)
            await until(running, lambda lake=lake, hub=hub: lake.read().keys() >= hub.keys())
            for worker in running.environment.workers(region):
                worker.kill()  # What it holds in memory for the region is gone as well.
            await running.follower.poll()
            await asyncio.to_thread(forget_all, running, region)
        await running.environment.start_workers(EAST, WEST)
        await running.environment.revive_region(SOUTH)
        await running.environment.wait_ready()
        bootstraps = bootstraps_of(running, tmp_path, since_s)
        dry = await bootstraps.done("dry", "--dry-run")
        away = len(await asyncio.to_thread(hub_of, running, SOUTH))
        killed = bootstraps.start("killed", "--rate", "150")
        await until(running, lambda: len(hub_of(running, SOUTH)) > away)
        killed.kill()
        resumed = await bootstraps.done("resumed")
        again = await bootstraps.done("again")
        verdict = await running.verdict()
    assert verdict.clean
    assert away == EACH  # its own, which nobody gets before it is back
    # Each lake has the events of both; each sender gives its own.
    lines = [f"{sender} over {LINK}: {EACH} events of the lake would go, filters aside\n" for sender in (WEST, EAST)]
    assert dry == (0, "".join(lines))
    assert resumed[0] == again[0] == 0
    told = rf"^{EAST} over {LINK}: \d+ sent, \d+ were there, none poison, {EACH} not for this link \({EACH} no_route\)$"
    assert re.search(told, resumed[1], re.MULTILINE)
    assert f"{EAST} over {LINK}: was given before" in again[1]
