"""A table written in two regions at once is kept equal, end to end; the judge counts what writers were told themselves.

`TABLE_KEYS` and `TABLE_SECONDS` in the environment make it longer: 1000 and 30 are the acceptance of this sink.
"""

import asyncio
import json
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from trial import DEADLINE_S, EAST, POLL_S, WEST, Trial, trial

from replicator.convergent import Writer
from replicator.core.quarantine_document import Document, decode_document

pytestmark = pytest.mark.slow

KEYS = int(os.environ.get("TABLE_KEYS", "60"))
SECONDS = float(os.environ.get("TABLE_SECONDS", "8"))
REMOVED = KEYS // 10
"""Keys beyond the others, which services remove with DeleteItem too."""
QUIET_S = 2.0

Clock = Callable[[], float]
CLOCKS: dict[str, list[Clock]] = {
    EAST: [lambda: time.time() + 3, lambda: math.floor(time.time())],
    WEST: [lambda: time.time() - 2, lambda: math.floor(time.time())],
}
"""Two services in each region: one ahead or behind, and one whose clock has seconds only, as the other region's has."""


def key_of(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"k{number}"}, "sk": {"S": "0"}}


class Service:
    """Writes what it likes, blindly or over what it read, until it is stopped."""

    def __init__(self, running: Trial, region: str, number: int) -> None:
        self.client = client_of(running, region)
        self.region = region
        self.writer = Writer(region, now_s=CLOCKS[region][number])
        self._rng = random.Random(f"{region}/{number}")
        self.accepted: list[tuple[str, str]] = []
        """Key and version of every write that DynamoDB took."""
        self.removals = 0
        self.refused = 0

    def run(self, stop: Event) -> None:
        while not stop.is_set():
            number = self._rng.randrange(KEYS + REMOVED)
            over = self._read(number) if self._rng.random() < 0.5 else None
            if number >= KEYS and self._rng.random() < 0.2:
                self._remove(number)
            else:
                self._write(number, over, tries=2)

    def _read(self, number: int) -> Any:
        return self.client.get_item(TableName="orders", Key=key_of(number), ConsistentRead=True).get("Item")

    def _write(self, number: int, over: Any, tries: int) -> None:
        key, by = key_of(number), {"S": f"{self.region}/{len(self.accepted)}"}
        # moto makes an absent item in two steps, and tells both, where DynamoDB has one.
        may_update = over is not None and number < KEYS
        what = self._rng.choice(["put", "update" if may_update else "put", "put", "delete"])
        try:
            if what == "update":
                arguments = self.writer.update(key, {"by": by}, over=over)
                version = arguments["ExpressionAttributeValues"][":version"]["S"]
                self.client.update_item(TableName="orders", **arguments)
            else:
                made = (
                    self.writer.put({**key, "by": by}, over=over)
                    if what == "put"
                    else self.writer.delete(key, over=over)
                )
                version = made["Item"]["version"]["S"]
                self.client.put_item(TableName="orders", **made)
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            self.refused += 1
            if tries:
                stored: Any = exc.response
                self._write(number, stored.get("Item"), tries - 1)
        else:
            self.accepted.append((key["pk"]["S"], version))

    def _remove(self, number: int) -> None:
        gone = self.client.delete_item(TableName="orders", Key=key_of(number), ReturnValues="ALL_OLD")
        self.removals += "Attributes" in gone


def client_of(running: Trial, region: str) -> Any:
    url = running.environment.regions[region].ready.aws
    assert isinstance(url, str)
    settings = Config(retries={"total_max_attempts": 1}, read_timeout=60)
    return boto3.client("dynamodb", region_name=region, endpoint_url=url, config=settings)


def table_of(client: Any) -> dict[str, Any]:
    found = {}
    for page in client.get_paginator("scan").paginate(TableName="orders", ConsistentRead=True):
        found |= {item["pk"]["S"]: item for item in page["Items"]}
    return found


def told_in(running: Trial, region: str) -> list[Any]:
    """The changes that the region itself told, as they stand in its hub."""
    stored = (json.loads(record.data) for shard in running.readers[region].hub() for record in shard)
    return [event for event in stored if "dynamodb" in event and not event["_replicator"]["path"]]


def held_in(running: Trial, region: str) -> set[tuple[str, str]]:
    """Key and version of everything that the region's table ever held, by its own stream."""
    url = running.environment.regions[region].ready.aws
    assert isinstance(url, str)
    streams: Any = boto3.client("dynamodbstreams", region_name=region, endpoint_url=url)
    arn = streams.list_streams(TableName="orders")["Streams"][0]["StreamArn"]
    found = set()
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        asked = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        place = streams.get_shard_iterator(**asked)["ShardIterator"]
        while records := (page := streams.get_records(ShardIterator=place))["Records"]:
            images = [record["dynamodb"].get("NewImage") for record in records]
            found |= {(image["pk"]["S"], image["version"]["S"]) for image in images if image is not None}
            place = page["NextShardIterator"]
    return found


def conflicts(running: Trial) -> dict[str, list[Document]]:
    """The documents of all regions by reason."""
    found: dict[str, list[Document]] = {}
    for path in running.environment.quarantine.rglob("*.json"):
        document = decode_document(path.read_bytes())
        found.setdefault(document.reason, []).append(document)
    return found


async def until_quiet(running: Trial, clients: dict[str, Any], least: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Until everything is told, both tables are equal, and no more is told for a while; the tables."""
    seen: dict[str, int] = {}
    since_s = time.monotonic()
    async with asyncio.timeout(DEADLINE_S + 4 * SECONDS):
        while True:
            await running.follower.poll()
            told = {region: len(told_in(running, region)) for region in clients}
            tables = {region: await asyncio.to_thread(table_of, client) for region, client in clients.items()}
            is_done = tables[EAST] == tables[WEST] and all(told[region] >= least[region] for region in clients)
            if told != seen or not is_done:
                seen, since_s = told, time.monotonic()
            elif time.monotonic() - since_s > QUIET_S:
                return tables
            running.environment.check()
            await asyncio.sleep(POLL_S)


async def kill_one(running: Trial, region: str) -> None:
    worker = running.environment.workers(region)[0]
    worker.kill()
    await worker.start()


async def test_two_regions_write_one_table_at_once_and_end_equal(tmp_path: Path) -> None:
    """Services put, update, delete and remove the same keys with clocks apart and with equal ones, and a worker of each
    region is killed meanwhile. The greatest version that any of them was told to be stored is what both tables hold."""
    async with trial(tmp_path, regions=(EAST, WEST), table="kept_equal") as running:
        services = [Service(running, region, number) for region in (EAST, WEST) for number in range(2)]
        clients = {region: client_of(running, region) for region in (EAST, WEST)}
        stop = Event()
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(asyncio.to_thread(service.run, stop))
            try:
                for region in (EAST, WEST):
                    await asyncio.sleep(SECONDS / 3)
                    await kill_one(running, region)
                await asyncio.sleep(SECONDS / 3)
            finally:
                stop.set()
        accepted = {region: [w for s in services if s.region == region for w in s.accepted] for region in clients}
        removals = {region: sum(s.removals for s in services if s.region == region) for region in clients}
        tables = await until_quiet(running, clients, {r: len(accepted[r]) + removals[r] for r in clients})
        told = {region: told_in(running, region) for region in clients}
        reports = conflicts(running)
        held = {region: await asyncio.to_thread(held_in, running, region) for region in clients}
        counted = await running.counts("conflicts_total")
    judge_tables(tables, [write for writes in accepted.values() for write in writes])
    judge_told(told, accepted, removals)
    judge_reports(reports, accepted, tables[EAST], held)
    assert counted
    assert all(service.refused for service in services if service.region == WEST)


def judge_tables(tables: dict[str, dict[str, Any]], accepted: list[tuple[str, str]]) -> None:
    assert tables[EAST] == tables[WEST]
    greatest: dict[str, str] = {}
    for key, version in accepted:
        greatest[key] = max(version, greatest.get(key, ""))
    for number in range(KEYS):
        key = f"k{number}"
        assert tables[EAST].get(key, {}).get("version", {}).get("S") == greatest.get(key), key
    for number in range(KEYS, KEYS + REMOVED):
        item = tables[EAST].get(f"k{number}")
        if item is not None:  # written, or the grave of what was written
            assert (f"k{number}", item["version"]["S"].rstrip("~")) in accepted


def judge_told(
    told: dict[str, list[Any]], accepted: dict[str, list[tuple[str, str]]], removals: dict[str, int]
) -> None:
    """Every write of services once, nothing of what replication wrote, and graves once more: so nothing goes round."""
    for region, events in told.items():
        written, removed, graves = [], 0, 0
        for event in events:
            image = event["dynamodb"].get("NewImage")
            if image is None:
                removed += 1
            elif image["version"]["S"].endswith("~"):
                graves += 1
            else:
                written.append((image["pk"]["S"], image["version"]["S"]))
        assert sorted(written) == sorted(accepted[region]), region
        assert removed == removals[region]
        assert graves <= sum(count for other, count in removals.items() if other != region)
    assert sum(removals.values())


def judge_reports(
    reports: dict[str, list[Document]],
    accepted: dict[str, list[tuple[str, str]]],
    table: dict[str, Any],
    held: dict[str, set[tuple[str, str]]],
) -> None:
    """A conflict is a write of a service, whole, that did not stay; and what never stood in the other table is one."""
    assert reports.keys() == {"conflict"}
    lost: dict[str, set[tuple[str, str]]] = {EAST: set(), WEST: set()}
    for document in reports["conflict"]:
        image = json.loads(document.data)["dynamodb"].get("NewImage")
        if image is None or image["version"]["S"].endswith("~"):
            continue  # a removal that lost
        key, version = image["pk"]["S"], image["version"]["S"]
        assert (key, version) in accepted[image["awsregion"]["S"]]
        assert key not in table or table[key]["version"]["S"] > version
        lost[image["awsregion"]["S"]].add((key, version))
    for region, other in ((EAST, WEST), (WEST, EAST)):
        assert set(accepted[region]) <= held[other] | lost[region]
        assert set(accepted[region]) - held[other], f"no write of {region} has lost"
