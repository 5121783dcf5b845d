"""Change data capture end to end: tables written in two regions, their events on every hub. The judge counts itself."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, Trial, trial

pytestmark = pytest.mark.slow

KEYS, VERSIONS = 20, 15


class Writer:
    """Writes items version by version, then deletes every second one."""

    def __init__(self, running: Trial, region: str) -> None:
        url = running.environment.regions[region].ready.aws
        assert isinstance(url, str)
        self._client: Any = boto3.client("dynamodb", region_name=region, endpoint_url=url)
        self.region = region
        self.written: list[tuple[str, str, int | None]] = []
        """Type, key and version of what was written, in order."""

    def write(self, key: str, version: int) -> None:
        item: Any = {
            "pk": {"S": key},
            "sk": {"S": "0"},
            "version": {"N": str(version)},
            "discriminator": {"S": "order"},
        }
        self._client.put_item(TableName="orders", Item=item)
        self.written.append(("order-updated" if version else "order-created", key, version))

    def delete(self, key: str) -> None:
        self._client.delete_item(TableName="orders", Key={"pk": {"S": key}, "sk": {"S": "0"}})
        self.written.append(("order-deleted", key, None))

    def run(self) -> None:
        for version in range(VERSIONS):
            for number in range(KEYS):
                self.write(f"{self.region}-{number}", version)
        for number in range(0, KEYS, 2):
            self.delete(f"{self.region}-{number}")


def told(running: Trial, region: str) -> list[Any]:
    """The events of tables in a region's hub, in order of its shards."""
    events = [json.loads(stored.data) for shard in running.readers[region].hub() for stored in shard]
    return [event for event in events if "raw" in event]


def what(event: Any) -> tuple[str, str, int | None]:
    new, old = event["raw"]["new"], event["raw"]["old"]
    return event["type"], (new or old)["pk"], new["version"] if new else None


async def until_all_have(running: Trial, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await running.follower.poll()
            if all(len(told(running, region)) >= count for region in running.readers):
                return
            running.environment.check()
            await asyncio.sleep(POLL_S)


async def test_tables_of_two_regions_are_told_on_every_hub_once_and_in_order(tmp_path: Path) -> None:
    """Over a relay, which stands between the two, and with a worker of each killed. In a mesh the demo does it."""
    async with trial(tmp_path, regions=(EAST, SOUTH, WEST), table="image", topology="chain") as running:
        writers = [Writer(running, region) for region in (EAST, WEST)]
        loads = [asyncio.create_task(asyncio.to_thread(writer.run)) for writer in writers]
        await asyncio.sleep(1.0)
        for region in (EAST, WEST):
            worker = running.environment.workers(region)[0]
            worker.kill()
            await worker.start()
        await asyncio.gather(*loads)
        written = [change for writer in writers for change in writer.written]
        await until_all_have(running, len(written))
        await running.load_while(seconds=1.0)  # what comes after: the hub's own events go on
        verdict = await running.verdict()
        found = {region: told(running, region) for region in running.readers}
        quarantined = running.environment.quarantined()
    assert verdict.lost == 0
    assert quarantined == 0
    for region, events in found.items():
        assert Counter(map(what, events)) == Counter(written), region
        by_key: dict[str, list[Any]] = defaultdict(list)
        for event in events:
            by_key[what(event)[1]].append(what(event))
        for key, seen in by_key.items():
            assert seen == [change for change in written if change[1] == key]
        for event in events:
            path = event["_replicator"]["path"]
            home = event["tags"]["region"]
            assert (path == []) == (home == region)
            assert path[:1] == ([] if home == region else [home])
            assert event["_replicator"]["origin"][1] == "orders-table"
    ids = {region: {event["id"] for event in events} for region, events in found.items()}
    assert ids[EAST] == ids[WEST] == ids[SOUTH]
    assert len(ids[EAST]) == len(written)
