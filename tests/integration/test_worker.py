"""Real workers between real endpoints, and what is done to them. The judge shares no code with the worker."""

import asyncio
import json
import os
import random
import signal
import urllib.request
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from replicator.dev.checker import Verdict, Written, judge
from replicator.dev.checker_reading import HubReader
from replicator.dev.clients import kinesis_client
from replicator.dev.demo_follow import Follower
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient

EAST, WEST, SOUTH = "us-east-1", "eu-west-1", "ap-southeast-2"
DEADLINE_S = 90.0
POLL_S = 0.1
KEYS = Keys(hot=3, cold=60)

pytestmark = pytest.mark.slow


class Trial:
    """An environment with running workers, a load, and the judge at the end."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.ledger = Ledger()
        self.stream = environment.layout.stream
        self.readers = {r: HubReader(p.ready.kinesis, r, self.stream) for r, p in environment.regions.items()}
        self._follower = Follower(self.readers)
        self._producers = [self._producer(region) for region in environment.regions]

    def _producer(self, region: str) -> Producer:
        client = StreamClient(self.environment.regions[region].ready.kinesis, region, self.stream)
        return Producer(client, region, 500, self.ledger, keys=KEYS, rng=random.Random(region))

    async def load_while(self, *disasters: Callable[[], Awaitable[None]], seconds: float = 4.0) -> None:
        """500 events a region over the time, the disasters spread over it."""
        async with asyncio.TaskGroup() as group:
            for producer in self._producers:
                group.create_task(producer.run(seconds))
            for disaster in disasters:
                await asyncio.sleep(seconds / (len(disasters) + 1))
                await disaster()

    async def verdict(self) -> Verdict:
        """Wait until every hub holds everything, then judge."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await self._follower.poll()
                wanted = self._follower.originals | {e.id for e in self.ledger.events if e.is_acknowledged}
                if not self._follower.missing(wanted):
                    break
                self.environment.check()
                await asyncio.sleep(POLL_S)
        return judge(self.ledger.events, {region: reader.hub() for region, reader in self.readers.items()})

    async def counts(self, name: str, *regions: str) -> int:
        """A counter of all workers and links together."""
        total = 0
        for worker in self.environment.workers(*regions):
            status = await self.environment.status(worker)
            for link in status.links.values() if status else ():
                total += sum(value for key, value in link.counts.items() if key.split("/")[0] == name)
        return total

    def fault(self, region: str, **rule: Any) -> None:
        url = f"{self.environment.regions[region].ready.kinesis}/_dev/faults"
        body = json.dumps([rule]).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as reply:
            reply.read()

    def close(self) -> None:
        self._follower.close()


@asynccontextmanager
async def trial(workdir: Path, **layout: Any) -> AsyncIterator[Trial]:
    async with Environment(Layout(**{"regions": (EAST, WEST), **layout}), workdir) as environment:
        await environment.start_workers()
        await environment.wait_ready()
        running = Trial(environment)
        try:
            yield running
        finally:
            running.close()


async def test_a_killed_worker_costs_delay_only(tmp_path: Path) -> None:
    async with trial(tmp_path) as running:
        victim = running.environment.workers(EAST)[0]

        async def kill() -> None:
            victim.kill()

        async def start() -> None:
            await victim.start()

        await running.load_while(kill, start)
        verdict = await running.verdict()
    assert verdict.clean, verdict


async def test_a_worker_that_was_stopped_while_others_took_its_shards_does_no_harm_when_it_goes_on(
    tmp_path: Path,
) -> None:
    async with trial(tmp_path) as running:
        child = running.environment.workers(EAST)[0].child
        assert child is not None

        async def stop() -> None:
            os.kill(child.pid, signal.SIGSTOP)

        async def go_on() -> None:
            await asyncio.sleep(7.0)  # longer than a lease lasts, so that the others have taken over
            os.kill(child.pid, signal.SIGCONT)

        await running.load_while(stop, go_on, seconds=6.0)
        verdict = await running.verdict()
        in_doubt = await running.counts("takeovers_in_doubt_total", EAST)
    assert verdict.clean, verdict
    assert in_doubt > 0


async def test_all_workers_of_a_region_may_be_killed_and_its_redis_flushed(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1) as running:

        async def kill() -> None:
            for worker in running.environment.workers():
                worker.kill()
            await running.environment.flush_redis(EAST)

        async def start() -> None:
            await running.environment.start_workers()

        await running.load_while(kill, start)
        verdict = await running.verdict()
    assert verdict.clean, verdict


async def test_a_terminated_worker_drains_exits_0_and_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    async with trial(tmp_path) as running:
        leaving = running.environment.workers(EAST)[0]
        child = leaving.child
        assert child is not None

        async def terminate() -> None:
            os.kill(child.pid, signal.SIGTERM)
            assert await child.ended() == 0
            leaving.child = None

        await running.load_while(terminate)
        verdict = await running.verdict()
        in_doubt = await running.counts("takeovers_in_doubt_total", EAST)
    assert verdict.clean, verdict
    assert in_doubt == 0


async def test_source_and_peer_may_be_split_and_merged_under_load(tmp_path: Path) -> None:
    async with trial(tmp_path, shards=1) as running:
        client = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)

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

        await running.load_while(split, merge, seconds=6.0)
        verdict = await running.verdict()
        client.close()
    assert verdict.clean, verdict


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "fail_entries", "fraction": 0.3, "probability": 0.5},
        {"kind": "throttle", "operation": "PutRecords", "probability": 0.3},
        {"kind": "drop_after", "operation": "PutRecords", "probability": 0.02},
        {"kind": "internal_error_after_effect", "operation": "PutRecords", "probability": 0.02},
        {"kind": "throttle", "operation": "GetRecords", "probability": 0.3},
        {"kind": "expire_iterators", "probability": 0.3},
        {"kind": "shuffle_entries"},
    ],
    ids=lambda rule: "-".join(str(part) for part in (rule["kind"], rule.get("operation", ""))),
)
async def test_what_aws_does_on_bad_days_neither_loses_nor_repeats_nor_reorders(
    tmp_path: Path, rule: dict[str, Any]
) -> None:
    async with trial(tmp_path, workers=1) as running:
        for region in (EAST, WEST):
            running.fault(region, **rule)
        await running.load_while()
        verdict = await running.verdict()
    assert verdict.clean, verdict


async def test_a_link_that_is_cut_delays_no_other(tmp_path: Path) -> None:
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), workers=1) as running:
        running.environment.cut_link(EAST, SOUTH)
        await running.load_while()
        others = {e.id for e in running.ledger.events}
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await running._follower.poll()
                missing = running._follower.missing(others)
                if set(missing) <= {SOUTH} and all(event.startswith(EAST) for event in missing[SOUTH]):
                    break
                await asyncio.sleep(POLL_S)
        [worker] = running.environment.workers(EAST)
        status = await running.environment.status(worker)
        assert status is not None
        assert status.ready
        assert status.links[f"orders:{SOUTH}"].state == "backing_off"
        assert status.links[f"orders:{WEST}"].state == "up"
        used = await running.environment.metric(worker, "source_retention_used_ratio", source="orders")
        assert used is not None
        assert 0 < used < 1
        assert await running.environment.metric(worker, "watermark_age_ms", link=f"orders:{SOUTH}")
        async with asyncio.timeout(DEADLINE_S):  # gauges are as of the last second
            while await running.environment.metric(worker, "watermark_age_ms", link=f"orders:{WEST}") != 0:
                await asyncio.sleep(POLL_S)
        running.environment.heal_link(EAST, SOUTH)
        verdict = await running.verdict()
    assert verdict.clean, verdict


async def test_a_redis_that_is_away_stops_nothing_and_is_counted(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1) as running:
        valkey = running.environment.regions[EAST].valkey

        async def kill() -> None:
            valkey.kill()

        async def start() -> None:
            await valkey.start()

        await running.load_while(kill, start)
        verdict = await running.verdict()
        unavailable = await running.counts("claim_store_unavailable_total", EAST)
    assert verdict.clean, verdict
    assert unavailable > 0


async def test_a_repeated_event_is_forwarded_once_and_other_bytes_under_its_id_as_well(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1, shards=1) as running:
        client = StreamClient(running.environment.regions[EAST].ready.kinesis, EAST, running.stream)
        first, other = (Written("x", EAST, "k", json.dumps({"id": "x", "n": n}).encode()) for n in (1, 2))
        for event in (first, first, other, first, other):
            client.put([event])
        reader = running.readers[WEST]
        async with asyncio.timeout(DEADLINE_S):
            while await running.counts("events_dropped_total", EAST) < 3:
                await asyncio.sleep(POLL_S)
        reader.poll()
        bodies = [json.loads(stored.data)["n"] for shard in reader.hub() for stored in shard]
        client.close()
    assert bodies == [1, 2]


async def test_poison_goes_to_quarantine_with_its_bytes_and_the_rest_goes_on(tmp_path: Path) -> None:
    poison = [b"\xff not json", b'{"_replicator":{"v":9}}', b'{"id":"big","x":"' + b"y" * (1024 * 1024 - 40) + b'"}']
    async with trial(tmp_path, workers=1) as running:
        client = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
        for data in poison:
            client.put_record(StreamName=running.stream, PartitionKey="k", Data=data)
        client.close()
        await running.load_while(seconds=2.0)
        async with asyncio.timeout(DEADLINE_S):
            while await running.counts("events_forwarded_total") < len(running.ledger.events):
                await asyncio.sleep(POLL_S)
        documents = [json.loads(path.read_bytes()) for path in tmp_path.rglob("*.json")]
    kept = [document for document in documents if document.get("link") == f"orders:{WEST}"]
    assert sorted(b64decode(document["data_base64"]) for document in kept) == sorted(poison)
    assert {document["reason"] for document in kept} == {"not_json", "unknown_tag_version", "oversize"}


async def test_a_hub_relays_and_a_lost_region_comes_back(tmp_path: Path) -> None:
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), workers=1, topology="hub") as running:
        environment = running.environment

        async def lose() -> None:
            environment.kill_region(SOUTH)

        async def return_() -> None:
            await environment.revive_region(SOUTH)

        await running.load_while(lose, return_, seconds=6.0)
        verdict = await running.verdict()
    assert verdict.clean, verdict


async def test_nothing_of_a_scope_outlives_its_window_in_redis(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1) as running:
        await running.load_while(seconds=1.0)
        await running.verdict()
        async with Redis.from_url(running.environment.regions[EAST].valkey.url) as client:
            keys = await client.keys("rr1:*")
            lasting = [key for key in keys if not key.endswith(b":o") and await client.pttl(key) < 0]
    assert keys
    assert lasting == []


async def test_readiness_speaks_of_the_own_source_and_lease_table_only(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1) as running:
        environment = running.environment
        [worker] = environment.workers(EAST)

        async def until(is_ready: bool) -> None:
            async with asyncio.timeout(DEADLINE_S):
                while (status := await environment.status(worker)) is None or status.ready != is_ready:
                    await asyncio.sleep(POLL_S)

        environment.cut_link(EAST, WEST)
        environment.cut_link(EAST, EAST)
        await until(is_ready=False)
        environment.heal_link(EAST, EAST)
        await until(is_ready=True)
        environment.regions[EAST].lease_proxy.cut()
        await until(is_ready=False)
        environment.regions[EAST].lease_proxy.heal()
        await until(is_ready=True)
        environment.heal_link(EAST, WEST)
        await running.load_while(seconds=1.0)
        verdict = await running.verdict()
    assert verdict.clean, verdict
