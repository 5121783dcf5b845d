"""What each fault costs, shown on real processes and compared with the table in the README."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, Trial, trial

from replicator.dev.checker import Verdict
from replicator.dev.clients import kinesis_client
from replicator.dev.environment import together

pytestmark = pytest.mark.slow

Shown = Callable[[Verdict], None]
fault = pytest.mark.fault
SKEW_MS = 5_000


@fault("worker crash")
async def test_a_killed_worker_costs_delay_only(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path) as running:
        victim = running.environment.workers(EAST)[0]

        async def kill() -> None:
            victim.kill()

        async def start() -> None:
            await victim.start()

        await running.load_while(kill, start)
        shown(await running.verdict())


@fault("lease stolen from a paused worker")
async def test_a_worker_that_was_stopped_while_others_took_its_shards_does_no_harm_when_it_goes_on(
    tmp_path: Path, shown: Shown
) -> None:
    async with trial(tmp_path) as running:
        worker = running.environment.workers(EAST)[0]
        child = worker.child
        assert child is not None

        async def stop() -> None:
            async with asyncio.timeout(DEADLINE_S):  # else it may have had nothing to leave in doubt
                while (status := await running.environment.status(worker)) is None or not any(
                    link.counts.get("events_forwarded_total") for link in status.links.values()
                ):
                    await asyncio.sleep(0.1)
            os.kill(child.pid, signal.SIGSTOP)

        async def go_on() -> None:
            await asyncio.sleep(7.0)  # longer than a lease lasts, so that the others have taken over
            os.kill(child.pid, signal.SIGCONT)

        await running.load_while(stop, go_on, seconds=6.0)
        shown(await running.verdict())
        assert await running.counts("takeovers_in_doubt_total", EAST) > 0


@fault("graceful stop")
async def test_a_terminated_worker_drains_exits_0_and_leaves_nothing_in_doubt(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path) as running:
        leaving = running.environment.workers(EAST)[0]
        child = leaving.child
        assert child is not None

        async def terminate() -> None:
            os.kill(child.pid, signal.SIGTERM)
            assert await child.ended() == 0
            leaving.child = None

        await running.load_while(terminate)
        shown(await running.verdict())
        assert await running.counts("takeovers_in_doubt_total", EAST) == 0


@fault("Redis flushed")
async def test_a_flushed_redis_stops_nothing(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path) as running:

        async def flush() -> None:
            await running.environment.flush_redis(EAST)

        await running.load_while(flush)
        shown(await running.verdict())
        assert await running.counts("claim_store_lost_total", EAST) > 0


@fault("Redis flushed while all workers crash")
async def test_all_workers_of_all_regions_may_be_killed_and_a_redis_flushed(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path, workers=1) as running:

        async def kill() -> None:
            for worker in running.environment.workers():
                worker.kill()
            await running.environment.flush_redis(EAST)

        async def start() -> None:
            await running.environment.start_workers()

        await running.load_while(kill, start)
        shown(await running.verdict())


@fault("Redis failover that loses acknowledged writes")
async def test_a_redis_that_falls_back_to_an_older_state_is_not_believed(tmp_path: Path, shown: Shown) -> None:
    """First under a running worker, then together with its crash, when the next one finds the old state."""
    async with trial(tmp_path) as running:
        victim = running.environment.workers(EAST)[0]
        async with Redis.from_url(running.environment.regions[EAST].valkey.url) as client:
            state: dict[bytes, tuple[bytes, int]] = {}

            async def remember() -> None:
                for key in await client.keys():
                    dump = await client.dump(key)
                    if dump is not None:
                        state[key] = dump, max(0, await client.pttl(key))

            async def fall_back() -> None:
                async with client.pipeline(transaction=True) as failover:
                    failover.flushall()
                    for key, (dump, ttl_ms) in state.items():
                        failover.restore(key, ttl_ms, dump)
                    await failover.execute()

            async def fall_back_until_noticed() -> None:
                await fall_back()
                async with asyncio.timeout(DEADLINE_S):
                    while not await running.counts("claim_store_lost_total", EAST):
                        await asyncio.sleep(POLL_S)

            async def fall_back_and_crash() -> None:
                victim.kill()
                await fall_back()
                await victim.start()

            await running.load_while(remember, fall_back_until_noticed, remember, fall_back_and_crash, seconds=6.0)
        shown(await running.verdict())


@fault("Redis away (`on_loss: continue`)")
async def test_a_redis_that_is_away_stops_nothing_and_is_counted(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path, workers=1) as running:
        valkey = running.environment.regions[EAST].valkey

        async def kill() -> None:
            valkey.kill()

        async def start() -> None:
            await valkey.start()

        await running.load_while(kill, start)
        shown(await running.verdict())
        assert await running.counts("claim_store_unavailable_total", EAST) > 0


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(
            [{"kind": "fail_entries", "fraction": 0.3, "probability": 0.2}, {"kind": "shuffle_entries"}],
            marks=fault("partial failure"),
            id="partial-failure",
        ),
        pytest.param(
            [
                {"kind": "throttle", "operation": "PutRecords", "probability": 0.2},
                {"kind": "throttle", "operation": "GetRecords", "probability": 0.3},
                {"kind": "expire_iterators", "probability": 0.3},
            ],
            marks=fault("throttling"),
            id="throttling",
        ),
        pytest.param(
            [
                {"kind": "drop_after", "operation": "PutRecords", "probability": 0.01},
                {"kind": "internal_error_after_effect", "operation": "PutRecords", "probability": 0.01},
            ],
            marks=fault("ambiguous reply (timeout, reset, 5xx)"),
            id="ambiguous",
        ),
    ],
)
async def test_what_aws_does_on_bad_days_neither_loses_nor_repeats_nor_reorders(
    tmp_path: Path, rules: list[dict[str, Any]], shown: Shown
) -> None:
    async with trial(tmp_path, workers=1) as running:
        for region in (EAST, WEST):
            running.fault(region, *rules)
        await running.load_while()
        shown(await running.verdict())
        for region in (EAST, WEST):
            assert {rule["kind"] for rule in rules} <= running.strikes(region).keys()


@fault("a request with one event that comes twice")
async def test_what_the_network_brings_twice_is_there_twice_and_nothing_else_is(tmp_path: Path, shown: Shown) -> None:
    """PutRecords has no idempotency, so no sender can prevent the copy; what follows is not touched by it."""
    async with trial(tmp_path, workers=1) as running:
        running.fault(WEST, {"kind": "repeat", "count": 1})
        await running.producer(EAST, events=1, name="alone").run(0.5)
        async with asyncio.timeout(DEADLINE_S):
            while not running.strikes(WEST).get("repeat"):
                await asyncio.sleep(POLL_S)
        await running.load_while()
        shown(await running.verdict())


@fault("peer down")
async def test_a_peer_that_is_down_gets_everything_when_it_is_back(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), workers=1) as running:
        environment = running.environment

        async def lose() -> None:
            environment.kill_region(SOUTH)

        async def return_() -> None:
            await environment.revive_region(SOUTH)

        await running.load_while(lose, return_)
        shown(await running.verdict())


@fault("source reshard")
async def test_a_source_may_be_split_and_merged_under_load(tmp_path: Path, shown: Shown) -> None:
    async with trial(tmp_path, shards=1) as running:
        await _reshard_under_load(running, EAST)
        shown(await running.verdict())


@fault("peer reshard")
async def test_a_peer_may_be_split_and_merged_while_what_a_lost_worker_sent_there_is_looked_up(
    tmp_path: Path, shown: Shown
) -> None:
    async with trial(tmp_path, shards=1) as running:

        async def crash() -> None:
            victim = running.environment.workers(EAST)[0]
            victim.kill()
            await victim.start()

        await _reshard_under_load(running, WEST, crash)
        shown(await running.verdict())


async def _reshard_under_load(running: Trial, region: str, *before_each: Any) -> None:
    client = kinesis_client(running.environment.regions[region].ready.kinesis, region)

    async def split() -> None:
        client.split_shard(
            StreamName=running.stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
        )

    async def merge() -> None:
        client.merge_shards(
            StreamName=running.stream,
            ShardToMerge="shardId-000000000001",
            AdjacentShardToMerge="shardId-000000000002",
        )

    await running.load_while(*before_each, split, *before_each, merge, seconds=6.0)
    client.close()


@fault("clock skew of 5 s")
async def test_a_peer_whose_clock_is_off_is_read_back_from_the_right_place(tmp_path: Path, shown: Shown) -> None:
    """One peer's clock is seconds ahead, the other's behind, and workers that had sent there are killed."""
    async with trial(tmp_path) as running:
        running.fault(WEST, {"kind": "clock_skew_ms", "ms": SKEW_MS})
        running.fault(EAST, {"kind": "clock_skew_ms", "ms": -SKEW_MS})
        victims = [running.environment.workers(region)[0] for region in (EAST, WEST)]

        async def kill() -> None:
            for victim in victims:
                victim.kill()

        async def start() -> None:
            await together(victim.start() for victim in victims)

        await running.load_while(kill, start)
        shown(await running.verdict())
