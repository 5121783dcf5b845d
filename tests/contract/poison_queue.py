"""A quarantine whose documents are messages of a queue of moto's, with a directory beside it."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.adapters.quarantine_sqs import SqsQuarantine
from replicator.adapters.sqs_sink import SqsSink
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.sqs_api import PREFIX, SERVICE, SqsApi
from replicator.aws.transport import JSON_1_0, JsonApi

REGION = "us-east-1"


class PoisonQueue:
    """``client`` is boto3's, as a team's own tools have it."""

    def __init__(self, quarantine: SqsQuarantine, client: Any, name: str, directory: Path) -> None:
        self.quarantine = quarantine
        self.client = client
        self.url = client.get_queue_url(QueueName=name)["QueueUrl"]
        self.directory = directory

    def messages(self) -> list[dict[str, Any]]:
        """Documents of all messages that nobody holds; they stay."""
        found: dict[str, dict[str, Any]] = {}
        held = []
        while received := self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            held += received
            found |= {message["MessageId"]: json.loads(message["Body"]) for message in received}
        for message in held:
            self.client.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return list(found.values())

    def beside(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in self.directory.rglob("*.json")]

    async def kept(self) -> list[bytes]:
        """Of all documents in both places; what a queue has twice is one by its link and origin."""
        documents = [*self.messages(), *self.beside()]
        by_id = {(document["link"], document["origin"]): document["data_base64"] for document in documents}
        return [b64decode(data) for data in by_id.values()]


@asynccontextmanager
async def opened_queue(
    aws_url: str, name: str, directory: Path, *, url: str = "", **options: Any
) -> AsyncIterator[PoisonQueue]:
    """``url`` answers the quarantine in place of moto."""
    client: Any = boto3.client("sqs", region_name=REGION, endpoint_url=aws_url)
    client.create_queue(QueueName=name)
    async with HttpPool(4) as http:
        calls = JsonApi(
            http,
            AwsSession(),
            service=SERVICE,
            region=REGION,
            url=url or aws_url,
            prefix=PREFIX,
            content_type=JSON_1_0,
        )
        api = SqsApi(calls, name, 5.0)
        quarantine = SqsQuarantine(api, SqsSink(api, origin_of=lambda _: None), FileQuarantine(directory), **options)
        yield PoisonQueue(quarantine, client, name, directory)
