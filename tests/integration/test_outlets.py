"""The events of a hub in queues and on buses of other regions, with workers killed: counted from both ends."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, WEST, Trial, trial

from replicator.dev.checker import event_id, is_replica
from replicator.dev.environment_config import OUTLET_BUS, OUTLET_FIFO

pytestmark = pytest.mark.slow


class Outlet:
    """A queue of a region, read to its end."""

    def __init__(self, running: Trial, region: str, name: str) -> None:
        url = running.environment.regions[region].ready.aws
        assert isinstance(url, str)
        self._client: Any = boto3.client("sqs", region_name=region, endpoint_url=url)
        self._url = self._client.get_queue_url(QueueName=name)["QueueUrl"]

    def count(self) -> int:
        name = "ApproximateNumberOfMessages"
        found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])["Attributes"]
        return int(found[name])

    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked = {"QueueUrl": self._url, "MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"]}
        while messages := self._client.receive_message(**asked).get("Messages"):
            found += messages
            handles = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            self._client.delete_message_batch(QueueUrl=self._url, Entries=handles)
        return found


def born_in(running: Trial, region: str) -> dict[str, bytes]:
    """What the region's own producers have written, by id."""
    stored = [record.data for shard in running.readers[region].hub() for record in shard]
    return {event_id(data) or "": data for data in stored if not is_replica(data)}


def without_tag(body: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(body)
    assert event.pop("_replicator")["path"] == [event["home"]]
    return event


async def test_a_fifo_queue_has_every_event_once_and_in_order_and_a_bus_at_least_once(tmp_path: Path) -> None:
    """All workers of a region are killed with requests on their way, and others find events in doubt."""
    async with trial(tmp_path, regions=(EAST, WEST), outlets=True) as running:

        async def kill() -> None:
            for worker in running.environment.workers(EAST):
                worker.kill()
            for worker in running.environment.workers(EAST):
                await worker.start()

        await running.load_while(kill)
        verdict = await running.verdict()
        assert verdict.clean, verdict
        wanted = {region: born_in(running, other) for region, other in ((EAST, WEST), (WEST, EAST))}
        queues = {region: Outlet(running, region, OUTLET_FIFO) for region in wanted}
        buses = {region: Outlet(running, region, OUTLET_BUS) for region in wanted}
        async with asyncio.timeout(DEADLINE_S):
            while any(
                outlet.count() < len(wanted[region])
                for outlets in (queues, buses)
                for region, outlet in outlets.items()
            ):
                running.environment.check()
                await asyncio.sleep(POLL_S)
        await asyncio.sleep(2.0)  # a second copy would come by now
        in_doubt = await running.counts("takeovers_unverified_total", EAST)
        received = {region: outlet.messages() for region, outlet in queues.items()}
        put = {region: outlet.messages() for region, outlet in buses.items()}
    assert in_doubt
    for region, events in wanted.items():
        originals = {key: json.loads(data) for key, data in events.items()}
        bodies = [without_tag(message["Body"]) for message in received[region]]
        assert Counter(body["id"] for body in bodies) == Counter(list(originals))
        assert all(body == originals[body["id"]] for body in bodies)
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for message, body in zip(received[region], bodies, strict=True):
            assert message["Attributes"]["MessageGroupId"] == body["key"]
            groups[body["key"]].append(body["key_seq"])
        assert all(numbers == sorted(numbers) for numbers in groups.values())
        details = [json.loads(message["Body"]) for message in put[region]]
        assert {found["detail"]["id"] for found in details} == originals.keys()
        for found in details:
            assert found["detail-type"] == found["detail"]["type"]
            assert without_tag(json.dumps(found["detail"])) == originals[found["detail"]["id"]]
