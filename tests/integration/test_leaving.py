"""Redaction and residency on real processes: a chain of three regions, large and small events, lost workers."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest
from test_claim_checks import arrived, resolved
from trial import EAST, SOUTH, WEST, Commands, Trial, trial

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.core.model import LinkName
from replicator.dev.clients import kinesis_client

pytestmark = pytest.mark.slow

LINK = LinkName(f"orders:{WEST}")
LEAVING = """\
  redact: {who.email: mark, who.name: remove}
  residency: [{within: [us-*], paths: [passport]}]
"""
SECRETS = ("jo@example.org", "Jo Secret")
WHO = {"email": SECRETS[0], "name": SECRETS[1], "n": 7}


def event(number: int) -> dict[str, Any]:
    """Every second one is large; one in ten must not leave, one in ten can't be looked into."""
    found: dict[str, Any] = {"id": f"e-{number}", "n": number, "who": WHO, "body": "x" * (3000 * (number % 2))}
    if number % 10 == 3:
        return {**found, "passport": "P1"}
    return {**found, "who": json.dumps(WHO)} if number % 10 == 6 else found


EVENTS = [event(number) for number in range(60)]
STAYS = Counter(residency=6, unredactable=6)
LEAVES = [each for each in EVENTS if each["n"] % 10 not in (3, 6)]


def put(running: Trial, events: list[dict[str, Any]]) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    for each in events:
        key, data = f"k{each['n'] % 3}", json.dumps(each).encode()
        client.put_record(StreamName=running.stream, PartitionKey=key, Data=data)
    client.close()


def bucket_of(running: Trial, region: str) -> list[bytes]:
    """All that stands in the region's bucket."""
    url: Any = running.environment.regions[region].ready.aws
    s3: Any = boto3.client("s3", region_name=region, endpoint_url=url)
    listed = s3.list_objects_v2(Bucket=f"orders-lake-{region}").get("Contents", [])
    return [s3.get_object(Bucket=f"orders-lake-{region}", Key=each["Key"])["Body"].read() for each in listed]


async def test_what_must_not_leave_is_in_no_other_region_and_all_else_arrives_once(tmp_path: Path) -> None:
    regions = (EAST, WEST, SOUTH)
    layout: dict[str, Any] = {"topology": "chain", "workers": 1, "claim_check": True, "leaving": LEAVING}
    async with trial(tmp_path, regions=regions, **layout) as running:
        await asyncio.to_thread(put, running, EVENTS[:30])
        await arrived(running, 10, WEST)
        for region in (EAST, WEST):
            [worker] = running.environment.workers(region)
            worker.kill()
            await running.environment.flush_redis(region)
        await asyncio.to_thread(put, running, EVENTS[30:])
        for region in (EAST, WEST):
            await running.environment.workers(region)[0].start()
        await arrived(running, len(LEAVES), WEST, SOUTH)
        quarantine = FileQuarantine(running.environment.quarantine / EAST)
        async with asyncio.timeout(60):
            while len(await quarantine.names(LINK)) < STAYS.total():
                await asyncio.sleep(0.2)
        redrive = Commands(running, tmp_path, "quarantine", "redrive", "--region", EAST, "--link", LINK)
        code, said = await redrive.done("redrive")
        put_away = [await quarantine.load(name) for name in await quarantine.names(LINK)]
        await asyncio.to_thread(running.readers[WEST].poll)
        hubs = {r: [record for shard in running.readers[r].hub() for record in shard] for r in (WEST, SOUTH)}
        whole = {r: [await asyncio.to_thread(resolved, running, each.data) for each in hub] for r, hub in hubs.items()}
        objects = await asyncio.to_thread(bucket_of, running, WEST)
        files = running.environment.quarantined()
    assert objects, "large events leave their bodies there"
    assert not await asyncio.to_thread(lambda: [each for each in objects if any(s.encode() in each for s in SECRETS)])
    for region, hub in hubs.items():
        assert not [each.data for each in hub if any(secret.encode() in each.data for secret in (*SECRETS, "P1"))]
        received = [json.loads(data) for data in whole[region]]
        for each in received:
            each.pop("_replicator", None)
        expected = [{**each, "who": {"email": "[redacted]", "n": 7}} for each in LEAVES]
        assert sorted(received, key=lambda each: each["n"]) == expected
    assert (code, Counter(document.reason for document in put_away)) == (1, STAYS), said
    assert files == STAYS.total(), "a relay puts away nothing that was redacted before"
    stayed = {json.loads(document.data)["id"]: json.loads(document.data) for document in put_away}
    assert stayed == {each["id"]: each for each in EVENTS if each not in LEAVES}
