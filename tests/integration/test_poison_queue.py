"""Poison of real workers in a queue, read as a team's own tools read it, and in the lake's bucket beside it."""

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import boto3
import pytest
from trial import DEADLINE_S, EAST, POLL_S, WEST, Commands, Trial, trial

from replicator.core.model import LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.quarantine_document import Quarantined, encode_document
from replicator.dev.clients import kinesis_client
from replicator.dev.environment_config import POISON_QUEUE, lake_bucket

pytestmark = pytest.mark.slow

LINK, TO_LAKE = LinkName(f"orders:{WEST}"), LinkName("orders:lake")
SMALL = [b"\xff poison %d" % number for number in range(12)]
LARGE = b"\xfe" * 300_000
EVENTS = 60


class Places:
    """Queue and bucket of one region."""

    def __init__(self, running: Trial) -> None:
        url: Any = running.environment.regions[EAST].ready.aws
        self._sqs: Any = boto3.client("sqs", region_name=EAST, endpoint_url=url)
        self._s3: Any = boto3.client("s3", region_name=EAST, endpoint_url=url)
        self._url = self._sqs.get_queue_url(QueueName=POISON_QUEUE)["QueueUrl"]

    def depth(self) -> int:
        """What an alarm sees, with what somebody holds."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body)

    def taken(self) -> dict[str, list[bytes]]:
        """Everything in the queue, by link; the queue is empty then."""
        found: dict[str, list[bytes]] = {}
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                document = json.loads(message["Body"])
                found.setdefault(document["link"], []).append(b64decode(document["data_base64"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def in_bucket(self, link: str) -> list[bytes]:
        listed = self._s3.list_objects_v2(Bucket=lake_bucket(EAST), Prefix=f"quarantine/{link}/").get("Contents", [])
        bodies = [self._s3.get_object(Bucket=lake_bucket(EAST), Key=each["Key"])["Body"].read() for each in listed]
        return [b64decode(json.loads(body)["data_base64"]) for body in bodies]


def put(running: Trial) -> None:
    client: Any = kinesis_client(running.environment.regions[EAST].ready.kinesis, EAST)
    poison = [*SMALL, LARGE]
    for number in range(EVENTS):
        data = json.dumps({"id": f"e-{number}", "n": number}).encode()
        client.put_record(StreamName=running.stream, PartitionKey=f"k{number % 5}", Data=data)
        if number % 4 == 0 and poison:
            client.put_record(StreamName=running.stream, PartitionKey=f"k{number % 5}", Data=poison.pop())
    assert not poison
    client.close()


def mended() -> str:
    """A message whose event is none of the poison any more, put away before."""
    origin = Origin(Region(EAST), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(1))
    data = json.dumps({"id": "mended", "n": -1}).encode()
    return encode_document(Quarantined(LINK, "oversize", "", origin, "k1", data, 1, 1_700_000_000_000)).decode()


async def arrived(running: Trial, events: int) -> list[int]:
    """The numbers of the events in WEST's hub, when there are so many."""
    reader = running.readers[WEST]
    async with asyncio.timeout(DEADLINE_S):
        while sum(map(len, reader.hub())) < events:
            running.environment.check()
            await asyncio.to_thread(reader.poll)
            await asyncio.sleep(POLL_S)
    return sorted(json.loads(stored.data)["n"] for shard in reader.hub() for stored in shard)


async def test_poison_goes_to_the_queue_with_its_bytes_and_is_redriven_from_there(tmp_path: Path) -> None:
    """Each link of the hub has its own: the one to the peer, and the one into the lake."""
    async with trial(tmp_path, workers=1, lake=True, poison_queue=True) as running:
        places = Places(running)
        await asyncio.to_thread(put, running)
        assert await arrived(running, EVENTS) == list(range(EVENTS)), "everything else goes on"
        async with asyncio.timeout(DEADLINE_S):
            while not (
                places.depth() == 2 * len(SMALL) and all(places.in_bucket(link) == [LARGE] for link in (LINK, TO_LAKE))
            ):
                await asyncio.sleep(POLL_S)
        await asyncio.to_thread(places.send, mended())

        words = ("--region", EAST)
        code, listed = await Commands(running, tmp_path, "quarantine", "list", *words, "--link", LINK).done("list")
        assert (code, f"{LINK}: {len(SMALL) + 2} in quarantine" in listed) == (0, True), listed
        redrive = Commands(running, tmp_path, "quarantine", "redrive", *words, "--link", LINK)
        code, said = await redrive.done("dry", "--dry-run")
        assert (code, f"{len(SMALL) + 2} documents of {LINK} would be redriven" in said) == (0, True), said
        assert places.depth() == 2 * len(SMALL) + 1
        code, said = await redrive.done("redrive")
        assert (code, f"1 done and removed, {len(SMALL) + 1} not_json still poison" in said) == (1, True), said
        assert await arrived(running, EVENTS + 1) == [-1, *range(EVENTS)]
        assert sorted(places.in_bucket(LINK)) == sorted([*SMALL, LARGE])
        assert {link: sorted(found) for link, found in places.taken().items()} == {TO_LAKE: sorted(SMALL)}
