"""Where the events of one part come from and where they go: streams, queues, buses, tables and buckets, made anew.

Everything here blocks. All but Kinesis is moto's, in the home region's process, which keeps the regions apart.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3

from replicator.convergent import Writer
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, encode_tag
from tests.benchmarks.load import event, make_stream, put_bodies, put_entries, put_events, records_in, spread_keys
from tests.benchmarks.regions import HOME, PEERS, Regions
from tests.cdc_records import AT_US, MAKERS, image
from tests.services import put_on_bus, send

SIZE_BYTES = 1024
COLUMNS = {f"column_{number}": f"{number}: " + "some text of a row, no more"[:26] for number in range(6)}
PUT_ITEMS_MAX = 25
"""Source: Amazon DynamoDB API Reference, BatchWriteItem."""
PEER = PEERS[0]
CHANGES = "changes"
"""The name of the source whose changes are applied to a table."""
ALL = '{"detail": {"id": [{"exists": true}]}}'
_key = spread_keys(1)


@dataclass(frozen=True, slots=True)
class Ends:
    """``put`` writes the events of these numbers to the source; ``arrived`` counts what the sink ever got, and ``left``
    what the source still holds."""

    put: Callable[[range], None]
    arrived: Callable[[], int]
    left: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class Ground:
    """The place of one part. All that is made there has the name of its hub's stream, which is there already."""

    regions: Regions
    name: str

    def client(self, service: str, region: str) -> Any:
        return _client(self.regions.aws, service, region)

    def put(self, numbers: range) -> None:
        """Into the home hub."""
        self.put_bodies(put_bodies(self.name, numbers, SIZE_BYTES, key=_key))

    def put_bodies(self, bodies: Iterator[bytes]) -> None:
        put_events(self.regions.url(HOME), HOME, bodies)

    def at_home(self) -> int:
        """What the home hub ever got."""
        return records_in(self.regions.url(HOME), self.name)

    def at_peer(self) -> int:
        return records_in(self.regions.url(PEER), self.name)


@cache
def _client(url: str, service: str, region: str) -> Any:
    return boto3.client(service, region_name=region, endpoint_url=url)


class Queue:
    """Nobody takes messages from one that is a sink."""

    def __init__(self, ground: Ground, region: str, name: str) -> None:
        self.client = ground.client("sqs", region)
        self.name = name
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        self._url = self.client.create_queue(QueueName=name, Attributes=fifo)["QueueUrl"]

    @property
    def arn(self) -> str:
        return str(self._attributes("QueueArn")["QueueArn"])

    def put(self, numbers: range) -> None:
        send(self.client, self.name, [(str(n), _key(n), event(n, SIZE_BYTES).decode()) for n in numbers])

    def held(self) -> int:
        """Also what a consumer has received and not deleted."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return sum(map(int, self._attributes(*names).values()))

    def _attributes(self, *names: str) -> dict[str, str]:
        found: dict[str, str] = self.client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        return found


class Bus:
    """With a rule that sends everything to the queue."""

    def __init__(self, ground: Ground, region: str, queue: Queue) -> None:
        self._client = ground.client("events", region)
        self._name = ground.name
        self._client.create_event_bus(Name=self._name)
        self._client.put_rule(Name=self._name, EventBusName=self._name, EventPattern=ALL)
        target = {"Id": "queue", "Arn": queue.arn}
        self._client.put_targets(Rule=self._name, EventBusName=self._name, Targets=[target])

    def put(self, numbers: range) -> None:
        put_on_bus(self._client, self._name, [event(n, SIZE_BYTES).decode() for n in numbers])


class Table:
    def __init__(self, ground: Ground, region: str) -> None:
        self._client = ground.client("dynamodb", region)
        self._name = ground.name
        self._client.create_table(
            TableName=self._name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def put(self, numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, PUT_ITEMS_MAX):
            part = range(start, min(start + PUT_ITEMS_MAX, numbers.stop))
            puts = [{"PutRequest": {"Item": row(number)}} for number in part]
            reply = self._client.batch_write_item(RequestItems={self._name: puts})
            assert not reply["UnprocessedItems"], reply

    def count(self) -> int:
        return int(self._client.describe_table(TableName=self._name)["Table"]["ItemCount"])


class Lake:
    """An object of a lake never changes, so each is read once."""

    def __init__(self, ground: Ground, region: str) -> None:
        self._client = ground.client("s3", region)
        self._bucket = lake_bucket(ground.name, region)
        self._lines: dict[str, int] = {}
        self._client.create_bucket(Bucket=self._bucket)

    def count(self) -> int:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for name in (each["Key"] for each in page.get("Contents", [])):
                if name not in self._lines:
                    body = self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()
                    self._lines[name] = gzip.decompress(body).count(b"\n")
        return sum(self._lines.values())


def lake_bucket(name: str, region: str) -> str:
    return f"{name}-{region}"


# --- what is in them -----------------------------------------------------------------------------------------------


def padded(make: Callable[[Mapping[str, str]], str]) -> str:
    """A record of a row of some columns that is `SIZE_BYTES` long. Raises ValueError where its frame is longer."""
    short = SIZE_BYTES - len(make({**COLUMNS, "note": ""}))
    if short < 0:
        raise ValueError(f"the record is {-short} bytes longer than {SIZE_BYTES} without its note")
    return make({**COLUMNS, "note": "x" * short})


def row(number: int) -> dict[str, Any]:
    """An item as services write them to a table."""
    columns = {**COLUMNS, "note": "x" * 300}
    return {"pk": {"S": _key(number)}, "sk": {"S": str(number)}, "n": {"N": str(number)}, **image(columns)}


def fill_cdc(ground: Ground, format_name: str, stream: str) -> Callable[[range], None]:
    """Makes a stream of change records in the home region; what is returned writes to it."""
    make_stream(ground.regions.url(HOME), HOME, stream, 1)
    make = MAKERS[format_name]

    def put(numbers: range) -> None:
        told = ((padded(lambda columns, n=number: make(n, columns)).encode(), _key(number)) for number in numbers)
        ground.put_bodies(put_entries(stream, told))

    return put


def fill_changes(ground: Ground) -> Callable[[range], None]:
    """Writes to the home hub what a source of a table's changes, mode raw, has written there."""
    writer = Writer(HOME)

    def put(numbers: range) -> None:
        ground.put_bodies(put_entries(ground.name, ((change(writer, n), _key(n)) for n in numbers)))

    return put


def change(writer: Writer, number: int) -> bytes:
    """A new item, tagged as in its own region's hub."""
    sequence = str(10**20 + number)

    def made(columns: Mapping[str, str]) -> str:
        keys = {"pk": {"S": _key(number)}, "sk": {"S": str(number)}}
        data = {
            "ApproximateCreationDateTime": AT_US // 1_000_000,
            "Keys": keys,
            "NewImage": writer.put({**keys, **image(columns)})["Item"],
            "SequenceNumber": sequence,
            "SizeBytes": 400,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        record = {"awsRegion": HOME, "dynamodb": data, "eventID": str(number), "eventName": "INSERT"}
        return json.dumps({**record, "eventSource": "aws:dynamodb", "eventVersion": "1.1"}, separators=(",", ":"))

    origin = Origin(
        Region(HOME), SourceName(CHANGES), "1789000000000", ShardId("shardId-1"), SequenceNumber(int(sequence)), 0
    )
    tag = Tag(1, origin, EventId(f"change-{number}"), (), AT_US // 1000)
    return b'{"_replicator":%b,%b' % (encode_tag(tag), padded(made).encode()[1:])
