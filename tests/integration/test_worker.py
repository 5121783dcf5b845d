"""Real workers between real endpoints in daily life. The judge shares no code with the worker."""

import asyncio
import json
from base64 import b64decode
from pathlib import Path

import pytest
from redis.asyncio import Redis
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, trial

from replicator.dev.checker import Written
from replicator.dev.clients import kinesis_client
from replicator.dev.workload import StreamClient

pytestmark = pytest.mark.slow


async def test_a_link_that_is_cut_delays_no_other(tmp_path: Path) -> None:
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), workers=1) as running:
        running.environment.cut_link(EAST, SOUTH)
        await running.load_while()
        others = {e.id for e in running.ledger.events}
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await running.follower.poll()
                missing = running.follower.missing(others)
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


async def test_a_worker_that_waits_for_its_redis_still_ends_within_the_drain_budget(tmp_path: Path) -> None:
    """``on_loss: pause``: nothing is sent meanwhile, nothing that was taken in is passed over."""
    async with trial(tmp_path, workers=1, on_loss="pause", drain_s=2.0) as running:
        [worker] = running.environment.workers(EAST)
        valkey = running.environment.regions[EAST].valkey

        async def kill() -> None:
            valkey.kill()
            async with asyncio.timeout(DEADLINE_S):
                while not await running.counts("claim_store_unavailable_total", EAST):
                    await asyncio.sleep(POLL_S)

        async def terminate() -> None:
            child = worker.child
            assert child is not None
            child.terminate()
            assert await child.ended() == 0
            worker.child = None
            await valkey.start()
            await worker.start()

        await running.load_while(kill, terminate)
        verdict = await running.verdict()
    assert verdict.clean, verdict


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
            while await running.counts("events_forwarded_total", EAST) < 2:
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


async def test_poison_that_can_not_be_put_away_is_not_passed_by_however_the_worker_ends(tmp_path: Path) -> None:
    async with trial(tmp_path, workers=1, drain_s=2.0) as running:
        [worker] = running.environment.workers(EAST)
        in_the_way = running.environment.quarantine / EAST
        in_the_way.rmdir()
        in_the_way.touch()
        client = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
        for shard in ("0", str(2**127)):
            client.put_record(StreamName=running.stream, PartitionKey="k", ExplicitHashKey=shard, Data=b"\xff poison")
        client.close()

        async def terminate() -> None:
            child = worker.child
            assert child is not None
            async with asyncio.timeout(DEADLINE_S):
                while "quarantine.unavailable" not in child.tail():
                    await asyncio.sleep(POLL_S)
            child.terminate()
            assert await child.ended() == 0
            worker.child = None
            in_the_way.unlink()
            await worker.start()

        await running.load_while(terminate)
        async with asyncio.timeout(DEADLINE_S):
            while await running.counts("events_forwarded_total") < len(running.ledger.events):
                await asyncio.sleep(POLL_S)
        kept = [json.loads(path.read_bytes()) for path in in_the_way.rglob("*.json")]
    assert [b64decode(document["data_base64"]) for document in kept] == [b"\xff poison"] * 2


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
            keys = await client.keys("rr2:*")
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
