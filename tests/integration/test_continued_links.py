"""A region whose hub has forgotten what a peer still lacks: its workers read on in the lake by themselves."""

import asyncio
from pathlib import Path

import pytest
from test_bootstrap_command import forget_all
from test_event_lake import LakeReader, hub_of, until
from trial import EAST, WEST, trial

pytestmark = pytest.mark.slow

KEPT = 3
"""Records of each shard that the hub still has."""
LINK = f"orders:{WEST}"


async def test_what_the_hub_forgot_while_a_peer_and_then_the_workers_were_away_arrives_once_and_in_order(
    tmp_path: Path,
) -> None:
    async with trial(tmp_path, workers=1, lake=True, continued=True) as running:
        environment = running.environment
        await running.load_while(seconds=2.0)
        assert (await running.verdict()).clean
        environment.kill_region(WEST)
        await running.producer(EAST, events=1500, name="missed").run(3.0)
        lake, hub = LakeReader(running, EAST), await asyncio.to_thread(hub_of, running, EAST)
        await until(running, lambda: lake.read().keys() >= hub.keys())
        [worker] = environment.workers(EAST)
        assert worker.child is not None
        worker.child.terminate()
        await worker.child.ended()
        worker.kill()
        await running.follower.poll()
        await asyncio.to_thread(forget_all, running, EAST, but=KEPT)
        await worker.start()
        await running.producer(EAST, events=300, name="later").run(1.0)
        await environment.revive_region(WEST)
        await environment.wait_ready()
        verdict = await running.verdict()
        status = await environment.status(worker)
    assert verdict.clean
    assert status is not None
    counts = status.links[LINK].counts
    assert counts["events_from_lake_total"] >= 1500 - 2 * KEPT
    assert not any(name.startswith("retention_losses_total") for name in counts)
    told = worker.log.read_text()
    assert "shard.reads_lake" in told
    assert "shard.left_lake" in told
