"""Claim checks as workers are built with them, into queues and buses of moto: a consumer gets all of a large event."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import boto3
import pytest
from test_eventbridge_sink import Bus
from test_sqs_sink import Queue

from replicator.adapters.telemetry import OtelTelemetry
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.bootstrap_claim_check import claim_checked
from replicator.bootstrap_sinks import Paces, Writers
from replicator.claim_check import pointer_of, verified
from replicator.config_load import load
from replicator.core.egress import EgressRules
from replicator.core.formats import make_format
from replicator.core.model import EventId, LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, encode_tag
from replicator.ports import Entry, Sink

HERE, PEER = Region("eu-west-1"), Region("us-east-1")
LINK = LinkName(f"hub:{PEER}")
CONFIG = """\
regions: {us-east-1: {endpoints: {s3: "URL", sqs: "URL", events: "URL"}}, eu-west-1: {}}
sources: {hub: {stream: hub, sink: out}}
sinks:
  out: {SINK, claim_check: {bucket: NAME-bodies, buckets: {eu-west-1: elsewhere}}}
"""
SINKS = {"sqs": "kind: sqs, queue: NAME.fifo", "bus": "kind: eventbridge, bus: NAME"}
LIMIT = 256 * 1024


@pytest.fixture(params=["sqs", "bus"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def name(kind: str, new_name: Callable[[str], str]) -> str:
    return new_name(f"checked-{kind}")


@pytest.fixture
def received(kind: str, name: str, aws_url: str) -> Callable[[], list[dict[str, Any]]]:
    """The events that consumers of the queue, or behind the bus, get."""
    if kind == "sqs":
        queue = Queue(aws_url, f"{name}.fifo")
        return lambda: [json.loads(body) for body in queue.bodies()]
    bus = Bus(aws_url, name)
    return lambda: [found["detail"] for found in bus.received()]


@pytest.fixture
async def sink(kind: str, name: str, aws_url: str) -> AsyncIterator[Sink]:
    text = CONFIG.replace("SINK", SINKS[kind]).replace("NAME", name).replace("URL", aws_url)
    config = load("env:CHECKED", {"CHECKED": text})
    async with AsyncExitStack() as stack:
        aws = await stack.enter_async_context(AwsSession())
        http = await stack.enter_async_context(HttpPool(4))
        telemetry = OtelTelemetry(region=HERE, worker="w")
        stack.callback(telemetry.close)
        writers = Writers(config, aws, http, Paces(1.0), make_format("json"), 1)
        chosen = config.sink("hub", PEER)
        writer = await writers.writer(chosen, PEER)
        checked = claim_checked(
            config,
            chosen,
            writer,
            LINK,
            PEER,
            aws=aws,
            origin_of=writers.origin_of,
            rules=EgressRules(),
            telemetry=telemetry,
        )
        yield await stack.enter_async_context(checked)


def entry(number: int, size: int) -> Entry:
    origin = Origin(HERE, SourceName("hub"), "17", ShardId("shardId-0"), SequenceNumber(number))
    tag = encode_tag(Tag(1, origin, EventId(f"e-{number}"), (HERE,), 1))
    head = b'{"_replicator":%b,"id":"e-%d","type":"paid","body":"' % (tag, number)
    return Entry(head + b"x" * (size - len(head) - 3) + b'"}', "k")


async def test_an_event_above_the_limit_arrives_as_a_pointer_to_all_of_it(
    sink: Sink, name: str, aws_url: str, received: Callable[[], list[dict[str, Any]]]
) -> None:
    s3: Any = boto3.client("s3", region_name=PEER, endpoint_url=aws_url)
    large = entry(1, LIMIT + 1)
    assert list(await sink.put([large])) == ["NoSuchBucket"], "nothing leaves before its body is stored"
    assert received() == []
    s3.create_bucket(Bucket=f"{name}-bodies")
    assert list(await sink.put([entry(2, 400), large])) == [None, None]
    small, told = sorted(received(), key=lambda event: str(event["id"]), reverse=True)
    assert (small["id"], "s3" in small) == ("e-2", False)
    assert (told["id"], told["type"], told["_replicator"]["id"], "body" in told) == ("e-1", "paid", "e-1", False)
    pointer = pointer_of(json.dumps(told).encode())
    assert pointer is not None
    body = verified(pointer, s3.get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"].read())
    assert json.loads(body) == {name: value for name, value in json.loads(large.data).items() if name != "_replicator"}
    assert pointer.region == PEER


@pytest.mark.parametrize("below", [0, 1, 2, 1500, 1600])
async def test_no_size_near_the_limit_is_refused(
    sink: Sink, name: str, aws_url: str, received: Callable[[], list[dict[str, Any]]], below: int
) -> None:
    boto3.client("s3", region_name=PEER, endpoint_url=aws_url).create_bucket(Bucket=f"{name}-bodies")
    assert list(await sink.put([entry(1, LIMIT - below)])) == [None]
    assert len(received()) == 1
