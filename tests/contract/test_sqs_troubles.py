"""What goes wrong with a queue as a source is counted and said: against moto, and a stub that refuses as SQS does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
from json_stub import Answers, Stub, refusal, stub
from structlog.testing import capture_logs

from replicator.adapters.sqs_source import HELD_MARGIN_S, QUEUE, RECEIVES_ADVISED, SqsSource
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.sqs_api import BEYOND, HELD_MAX_S, PREFIX, SqsApi
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.core.model import After, TrimHorizon
from replicator.errors import TransientError
from replicator.ports import Page, QueueTroubles

REGION = "us-east-1"
VISIBILITY_S = 60


class Clock:
    """Monotonic seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def source_at(url: str, name: str, clock: Clock) -> AsyncIterator[SqsSource]:
    async with HttpPool(4) as http:
        api = JsonApi(http, AwsSession(), service="sqs", region=REGION, url=url, prefix=PREFIX, content_type=JSON_1_0)
        queue = SqsApi(api, name, 5.0)
        yield SqsSource(queue, visibility_s=VISIBILITY_S, wait_s=0, key_of=lambda _: None, now_s=clock)


def queue_of(url: str, **more: Any) -> Answers:
    """A queue with two messages, which are received once."""
    messages = [{"MessageId": f"m{n}", "ReceiptHandle": f"h{n}", "Body": "{}"} for n in range(2)]
    received: list[dict[str, Any]] = [{"Messages": messages}]
    return {
        "GetQueueUrl": lambda _: {"QueueUrl": f"{url}q"},
        "ReceiveMessage": lambda _: received.pop() if received else {},
        "ChangeMessageVisibilityBatch": lambda asked: {"Successful": [{"Id": each["Id"]} for each in asked["Entries"]]},
        "DeleteMessageBatch": lambda asked: {"Successful": [{"Id": each["Id"]} for each in asked["Entries"]]},
        **more,
    }


def beyond(asked: dict[str, Any]) -> dict[str, Any]:
    """As SQS refuses it for the first message, and only for that."""
    text = f"Value {VISIBILITY_S} for parameter VisibilityTimeout is invalid. Reason: {BEYOND} [43200 seconds]"
    failed = {"Code": "InvalidParameterValue", "SenderFault": True, "Message": text}
    ids = {each["ReceiptHandle"]: each["Id"] for each in asked["Entries"]}
    return {
        "Failed": [{"Id": ids[handle], **failed} for handle in ids if handle == "h0"],
        "Successful": [{"Id": ids[handle]} for handle in ids if handle != "h0"],
    }


async def first_page(source: SqsSource) -> Page:
    return await source.read(await source.open(QUEUE, TrimHorizon()), 10)


async def pass_time(source: SqsSource, clock: Clock, until_s: float) -> None:
    while clock.now_s < until_s:
        clock.now_s += VISIBILITY_S / 2
        await source._upkeep(lambda: True)


def extended(service: Stub) -> int:
    return sum(len(asked["Entries"]) for asked in service.requests("ChangeMessageVisibilityBatch"))


async def test_a_message_is_kept_for_almost_12_hours_then_said_and_counted_once_and_still_deleted_when_done() -> None:
    clock = Clock()
    async with stub(queue_of("http://q/")) as service, source_at(service.url, "q", clock) as source:
        page = await first_page(source)
        began_s = clock.now_s
        await pass_time(source, clock, began_s + HELD_MAX_S - HELD_MARGIN_S - 2 * VISIBILITY_S)
        assert source.troubles().kept_no_longer == 0
        with capture_logs() as told:
            await pass_time(source, clock, began_s + HELD_MAX_S)
        assert [(each["event"], each["messages"], each["log_level"]) for each in told] == [
            ("queue.kept_no_longer", 2, "error")
        ]
        assert source.troubles().kept_no_longer == 2
        assert source.troubles().kept_no_longer == 0
        before = extended(service)
        await pass_time(source, clock, began_s + HELD_MAX_S + 600)
        assert extended(service) == before
        source.done(After(page.records[-1].sequence))
        await source._upkeep(lambda: True)
        assert len(service.requests("DeleteMessageBatch")) == 1


async def test_a_refusal_of_sqs_itself_is_the_end_for_its_message_and_the_others_are_kept_on() -> None:
    clock = Clock()
    answers = queue_of("http://q/", ChangeMessageVisibilityBatch=beyond)
    async with stub(answers) as service, source_at(service.url, "q", clock) as source:
        await first_page(source)
        await pass_time(source, clock, clock.now_s + 10 * VISIBILITY_S)
        handles = [
            each["ReceiptHandle"]
            for asked in service.requests("ChangeMessageVisibilityBatch")
            for each in asked["Entries"]
        ]
        assert handles.count("h0") == 1
        assert handles.count("h1") > 5
        assert source.troubles().kept_no_longer == 1


async def test_too_many_messages_in_flight_is_not_taken_for_throttling_and_said_once() -> None:
    answers = queue_of("http://q/", ReceiveMessage=lambda _: refusal("OverLimit"))
    async with stub(answers) as service, source_at(service.url, "q", Clock()) as source:
        with capture_logs() as told:
            for _ in range(3):
                with pytest.raises(TransientError) as caught:
                    await first_page(source)
                assert caught.value.code == "over_limit"
    assert [each["event"] for each in told] == ["queue.over_limit"]


async def test_a_queue_near_its_limit_is_said_since_a_long_poll_and_a_fifo_queue_never_tell() -> None:
    counts = iter(["95999", "96001", "119000", "0"])

    def attributes(_: dict[str, Any]) -> dict[str, Any]:
        told = {"CreatedTimestamp": "1", "MessageRetentionPeriod": "60"}
        return {"Attributes": told | {"ApproximateNumberOfMessagesNotVisible": next(counts)}}

    answers = queue_of("http://q/", GetQueueAttributes=attributes)
    async with stub(answers) as service, source_at(service.url, "q", Clock()) as source:
        with capture_logs() as told:
            seen = [(await source.describe(), source.troubles().in_flight)[1] for _ in range(4)]
    assert seen == [95_999, 96_001, 119_000, 0]
    assert [(each["event"], each["in_flight"]) for each in told] == [("queue.near_limit", "96001")]


async def test_the_last_receive_before_the_dead_letters_is_counted_and_a_low_policy_said(
    aws_url: str, new_name: Callable[[str], str]
) -> None:
    client: Any = boto3.client("sqs", region_name=REGION, endpoint_url=aws_url)
    name, dead = new_name("queue"), new_name("dead")
    dead_url = client.create_queue(QueueName=dead)["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "2"}}'
    url = client.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="{}")
    async with source_at(aws_url, name, Clock()) as source:
        with capture_logs() as told:
            await source.describe()
            await source.describe()
        [low] = told
        assert (low["event"], low["max_receive_count"], low["dead_letters"]) == ("queue.redrive_policy_low", 2, arn)
        assert (await first_page(source)).records
        assert source.troubles() == QueueTroubles(0, 0, in_flight=0)
        await source._upkeep(lambda: False)
        await source.describe()
        with capture_logs() as told:
            assert (await first_page(source)).records
        assert [(each["event"], each["messages"]) for each in told] == [("queue.last_receive", 1)]
        await source.describe()
        assert source.troubles() == QueueTroubles(0, 1, in_flight=1)


@pytest.mark.parametrize("policy", [{}, {"RedrivePolicy": f'{{"maxReceiveCount": {RECEIVES_ADVISED}}}'}])
async def test_a_queue_without_a_redrive_policy_or_with_a_high_one_is_fine(policy: dict[str, str]) -> None:
    attributes = {"CreatedTimestamp": "1", "MessageRetentionPeriod": "60", **policy}
    answers = queue_of("http://q/", GetQueueAttributes=lambda _: {"Attributes": attributes})
    async with stub(answers) as service, source_at(service.url, "q", Clock()) as source:
        with capture_logs() as told:
            await source.describe()
            await first_page(source)
        assert told == []
        assert source.troubles() == QueueTroubles()
