"""Change records others write to streams, end to end: on every hub once, repeats and control records not at all."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from trial import DEADLINE_S, EAST, POLL_S, WEST, Trial, trial

from replicator.dev.clients import kinesis_client
from tests.cdc_records import KEYS, MAKERS

pytestmark = pytest.mark.slow

ROWS, AT_ONCE = 200, 50
TABLES = {"dynamodb": "stock", "dms": "bills", "debezium": "people"}
NO_ROWS = {
    "dms": json.dumps(
        {"metadata": {"timestamp": "2026-11-25T10:00:00Z", "record-type": "control", "operation": "create-table"}}
    ),
    "debezium": '{"ts_ms":1}',
}
WANTED = Counter((TABLES[name], number) for name in MAKERS for number in range(ROWS))


def write(running: Trial, first: int, last: int) -> None:
    """Rows of every stream, each told twice in a row of its key, with what is no row between them."""
    client = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    try:
        for name, maker in MAKERS.items():
            for start in range(first, last, AT_ONCE):
                told = [(str(n % KEYS), maker(n)) for n in range(start, min(start + AT_ONCE, last))]
                records = [*told, *told, *[("x", text) for text in (NO_ROWS.get(name),) if text is not None]]
                entries = [{"Data": data.encode(), "PartitionKey": key} for key, data in records]
                assert client.put_records(StreamName=name, Records=entries)["FailedRecordCount"] == 0
        if last == ROWS:
            client.put_record(StreamName="debezium", Data=b"no envelope", PartitionKey="x")
    finally:
        client.close()


def told(running: Trial, region: str) -> list[Any]:
    events = [json.loads(stored.data) for shard in running.readers[region].hub() for stored in shard]
    return [event for event in events if event.get("_replicator", {"origin": ["", ""]})["origin"][1] in MAKERS]


def what(event: Any) -> tuple[str, int]:
    return event["tags"]["table"], event["raw"]["new"]["n"]


async def until(running: Trial, count: int, *regions: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await running.follower.poll()
            if all(len(told(running, region)) >= count for region in regions):
                return
            running.environment.check()
            await asyncio.sleep(POLL_S)


async def test_change_records_in_streams_are_on_every_hub_once_though_a_worker_is_killed(tmp_path: Path) -> None:
    async with trial(tmp_path, regions=(EAST, WEST), cdc=True) as running:
        await asyncio.to_thread(write, running, 0, ROWS // 2)
        await until(running, 1, EAST)
        worker = running.environment.workers(EAST)[0]
        worker.kill()
        await asyncio.to_thread(write, running, ROWS // 2, ROWS)
        await worker.start()
        await until(running, len(WANTED), EAST, WEST)
        async with asyncio.timeout(DEADLINE_S):
            while running.environment.quarantined() == 0:  # the last record of its stream
                await asyncio.sleep(POLL_S)
        await running.load_while(seconds=1.0)  # what comes after: the hub's own events go on
        verdict = await running.verdict()
        found = {region: told(running, region) for region in running.readers}
        quarantined = running.environment.quarantined()
    assert (verdict.lost, quarantined) == (0, 1)
    for region, events in found.items():
        assert Counter(map(what, events)) == WANTED, region
        assert all(event["_replicator"]["path"] == ([] if region == EAST else [EAST]) for event in events)
        for table, key in {(table, number % KEYS) for table, number in WANTED}:
            numbers = [number for name, number in map(what, events) if name == table and number % KEYS == key]
            assert numbers == sorted(numbers)
    assert {event["id"] for event in found[EAST]} == {event["id"] for event in found[WEST]}
