"""Queues of two regions end to end: their messages on every hub once, whatever happens to workers and Redis."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, Trial, trial

pytestmark = pytest.mark.slow

MESSAGES, AT_ONCE, POISON = 300, 10, "not json"


class Sender:
    def __init__(self, running: Trial, region: str) -> None:
        url = running.environment.regions[region].ready.aws
        assert isinstance(url, str)
        self._client: Any = boto3.client("sqs", region_name=region, endpoint_url=url)
        self._url = self._client.get_queue_url(QueueName="orders")["QueueUrl"]
        self.region = region
        self.bodies = [json.dumps({"id": f"{region}-{n}", "key": f"k{n % 7}", "home": region}) for n in range(MESSAGES)]

    def run(self) -> None:
        for start in range(0, MESSAGES, AT_ONCE):
            entries = [
                {"Id": str(n), "MessageBody": body} for n, body in enumerate(self.bodies[start : start + AT_ONCE])
            ]
            assert not self._client.send_message_batch(QueueUrl=self._url, Entries=entries).get("Failed")
        self._client.send_message(QueueUrl=self._url, MessageBody=POISON)

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


def bodies_in(running: Trial, region: str) -> list[str]:
    """What the region's hub holds of the queues', without the tags."""
    found = []
    for shard in running.readers[region].hub():
        for stored in shard:
            event = json.loads(stored.data)
            tag = event.pop("_replicator", None)
            if tag is not None and tag["origin"][1] == "orders-queue":
                assert (tag["path"] == []) == (event["home"] == region)
                found.append(json.dumps(event))
    return found


async def test_messages_of_two_queues_are_on_every_hub_once_and_gone_from_their_queue(tmp_path: Path) -> None:
    """Workers are killed with messages in their hands, and with Redis empty only the hub knows what it holds."""
    async with trial(tmp_path, regions=(EAST, WEST, SOUTH), queue=True) as running:
        senders = [Sender(running, region) for region in (EAST, WEST)]
        loads = [asyncio.create_task(asyncio.to_thread(sender.run)) for sender in senders]
        async with asyncio.timeout(DEADLINE_S):
            while not all([await running.counts("events_forwarded_total", region) for region in (EAST, WEST)]):
                await asyncio.sleep(POLL_S)
        for region in (EAST, WEST):
            for worker in running.environment.workers(region):
                worker.kill()
            await running.environment.flush_redis(region)
            for worker in running.environment.workers(region):
                await worker.start()
        await asyncio.gather(*loads)
        wanted = Counter(body for sender in senders for body in sender.bodies)
        async with asyncio.timeout(DEADLINE_S):
            while any(len(bodies_in(running, region)) < len(wanted) for region in running.readers) or any(
                sender.left() for sender in senders
            ):
                running.environment.check()
                await running.follower.poll()
                await asyncio.sleep(POLL_S)
        await asyncio.sleep(2.0)  # a second copy would come by now
        await running.follower.poll()
        found = {region: Counter(bodies_in(running, region)) for region in running.readers}
        quarantined = running.environment.quarantined()
    assert found == dict.fromkeys(found, wanted)
    assert quarantined == len(senders)
