"""KPL producers in front of real workers: aggregates are replicated event by event, and links may pack them again."""

import asyncio
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from trial import DEADLINE_S, EAST, KEYS, POLL_S, WEST, Trial, trial

from replicator.dev.checker import Written
from replicator.dev.clients import kinesis_client
from replicator.dev.workload import Producer, StreamClient

SHARDS = 2
EVENTS_MAX = 40

pytestmark = pytest.mark.slow


class KplClient(StreamClient):
    """Packs the events of a request, one aggregate a shard, which it predicts from the key as the KPL does.

    The format is written here anew, so that the worker's own reading of it is not taken for granted.
    """

    def put(self, events: Sequence[Written]) -> list[bool]:
        packs: dict[int, list[Written]] = {}
        for event in events:
            place = int(hashlib.md5(event.key.encode()).hexdigest(), 16)
            packs.setdefault(place * SHARDS >> 128, []).append(event)
        stored = super().put([Written("", "", pack[0].key, aggregate(pack)) for pack in packs.values()])
        assert all(stored), "the endpoint was not asked to fail entries"
        return [True] * len(events)


def aggregate(events: Sequence[Written]) -> bytes:
    keys = sorted({event.key for event in events})
    message = b"".join(field(1, key.encode()) for key in keys)
    for event in events:
        message += field(3, b"\x08" + varint(keys.index(event.key)) + field(3, event.data))
    return b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message).digest()


def field(number: int, value: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value % 128 + 128,)) + varint(value // 128)


class KplProducer(Producer):
    """A request may hold several events of a key: they are in order inside the aggregate."""

    def _request(self) -> list[Written]:
        return [self._pending.popleft() for _ in range(min(EVENTS_MAX, len(self._pending)))]


def kpl_producer(running: Trial, region: str) -> Producer:
    client = KplClient(running.environment.regions[region].ready.kinesis, region, running.stream)
    return KplProducer(client, region, 600, running.ledger, keys=KEYS, rng=random.Random(region))


async def load_and_kill(running: Trial) -> None:
    """Every worker of the east is killed in the middle; with Redis empty only the peer knows what it holds."""
    running.producers = [kpl_producer(running, region) for region in (EAST, WEST)]
    victims = running.environment.workers(EAST)

    async def kill() -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await running.counts("events_forwarded_total", EAST):
                await asyncio.sleep(POLL_S)
        for victim in victims:
            victim.kill()
        await running.environment.flush_redis(EAST)

    async def start() -> None:
        for victim in victims:
            await victim.start()

    await running.load_while(kill, start)


async def test_aggregates_survive_killed_workers_event_by_event(tmp_path: Path) -> None:
    """Those of producers, and those that workers pack and read back after the takeover."""
    async with trial(tmp_path, shards=SHARDS, aggregate="kpl") as running:
        await load_and_kill(running)
        verdict = await running.verdict()
        in_doubt = await running.counts("takeovers_in_doubt_total", EAST)
        packed = aggregates_in(running, WEST)
        quarantined = running.environment.quarantined()
    assert verdict.clean, verdict
    assert verdict.written == 1200
    assert verdict.delivered == {EAST: 600, WEST: 600}
    assert in_doubt > 0
    assert any(b'"_replicator"' in data for data in packed), "no link has packed anything"
    assert not quarantined


def aggregates_in(running: Trial, region: str) -> list[bytes]:
    """The aggregates of a hub's first pages as they are stored."""
    client = kinesis_client(running.environment.regions[region].ready.kinesis, region)
    found = []
    for shard in client.list_shards(StreamName=running.stream)["Shards"]:
        place = {"StreamName": running.stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        reply = client.get_records(ShardIterator=client.get_shard_iterator(**place)["ShardIterator"])
        found += [record["Data"] for record in reply["Records"]]
    client.close()
    return [data for data in found if data.startswith(b"\xf3\x89\x9a\xc2")]
