"""A queue as a sink, against moto: what is put is there under its group, once, and what is not is said."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from json_stub import Answers, refusal, stub

from replicator.adapters.sqs_sink import SqsSink
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.sqs_api import PREFIX, SqsApi
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.queue_messages import MESSAGE_BYTES_MAX, group_of, repetition_of
from replicator.dev.proxy import Proxy
from replicator.errors import InDoubt, Misconfigured, Refused, TransientError
from replicator.ports import Entry

REGION = "us-east-1"


def origin_of(data: bytes) -> Origin | None:
    """The tests' events are made from their number."""
    number = json.loads(data).get("n")
    return (
        None if number is None else Origin(Region(REGION), SourceName("s"), "1", ShardId("1"), SequenceNumber(number))
    )


def event(number: int, **more: Any) -> bytes:
    return json.dumps({"n": number, **more}).encode()


class Queue:
    def __init__(self, url: str, name: str) -> None:
        self.client: Any = boto3.client("sqs", region_name=REGION, endpoint_url=url)
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        self.url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.name = name

    def received(self) -> list[dict[str, Any]]:
        """All messages, taken out of the queue in order."""
        found: list[dict[str, Any]] = []
        while messages := self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        ).get("Messages"):
            found += messages
            for message in messages:
                self.client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def bodies(self) -> list[str]:
        return [message["Body"] for message in self.received()]


@pytest.fixture
async def http() -> AsyncIterator[HttpPool]:
    async with HttpPool(4) as opened:
        yield opened


Sinks = Callable[..., SqsSink]


@pytest.fixture
def sink_at(http: HttpPool) -> Sinks:
    def made(url: str, name: str, timeout_s: float = 5.0, **more: Any) -> SqsSink:
        api = JsonApi(http, AwsSession(), service="sqs", region=REGION, url=url, prefix=PREFIX, content_type=JSON_1_0)
        return SqsSink(SqsApi(api, name, timeout_s), origin_of=origin_of, **more)

    return made


@pytest.fixture
def standard(aws_url: str, new_name: Callable[[str], str]) -> Queue:
    return Queue(aws_url, new_name("sink"))


@pytest.fixture
def fifo(aws_url: str, new_name: Callable[[str], str]) -> Queue:
    return Queue(aws_url, f"{new_name('sink')}.fifo")


# --- what is stored ------------------------------------------------------------------------------------------------


async def test_messages_of_a_standard_queue_are_the_events_byte_for_byte(
    standard: Queue, sink_at: Sinks, aws_url: str
) -> None:
    datas = ['{ "n" : 1.50, "s":"käse \\u0000 \U0001f600 \\"x\\"" }', '{\t"n":\r\n2}']
    sink = sink_at(aws_url, standard.name)
    assert list(await sink.put([Entry(data.encode(), "k") for data in datas])) == [None, None]
    received = standard.received()
    assert sorted(message["Body"] for message in received) == sorted(datas)
    assert not any({"MessageGroupId", "MessageDeduplicationId"} & message["Attributes"].keys() for message in received)
    assert sink.limits.repeats_dropped_ms is None


async def test_messages_of_a_fifo_queue_go_under_their_key_in_order_and_are_known_by_their_origin(
    fifo: Queue, sink_at: Sinks, aws_url: str
) -> None:
    sink = sink_at(aws_url, fifo.name)
    for number in range(4):
        keys = [f"key-{number % 2}", "ké y"]
        entries = [Entry(event(number * 10 + place), key) for place, key in enumerate(keys)]
        assert list(await sink.put(entries)) == [None, None]
    seen: dict[str, list[int]] = {}
    for message in fifo.received():
        number = json.loads(message["Body"])["n"]
        assert message["Attributes"]["MessageDeduplicationId"] == repetition_of(origin_of(event(number)), b"")
        seen.setdefault(message["Attributes"]["MessageGroupId"], []).append(number)
    assert seen == {"key-0": [0, 20], "key-1": [10, 30], group_of("ké y"): [1, 11, 21, 31]}


async def test_a_fifo_queue_drops_a_repetition_whatever_time_its_tag_names(
    fifo: Queue, sink_at: Sinks, aws_url: str
) -> None:
    sink = sink_at(aws_url, fifo.name)
    assert list(await sink.put([Entry(event(1, at=1), "k"), Entry(event(2), "k")])) == [None, None]
    assert list(await sink.put([Entry(event(1, at=2), "k"), Entry(event(3), "k")])) == [None, None]
    assert [json.loads(body)["n"] for body in fifo.bodies()] == [1, 2, 3]
    assert sink.limits.repeats_dropped_ms == 300_000


async def test_what_no_message_can_hold_is_refused_and_the_others_are_stored(
    standard: Queue, sink_at: Sinks, aws_url: str
) -> None:
    good = [event(1), event(2)]
    sink = sink_at(aws_url, standard.name)
    results = await sink.put([Entry(good[0], "k"), Entry(b'{"n":9,"x":"\xff"}', "k"), Entry(good[1], "k")])
    assert [results[0], results[2]] == [None, None]
    assert isinstance(results[1], Refused)
    assert sorted(standard.bodies()) == sorted(data.decode() for data in good)
    [alone] = await sink.put([Entry("\uffff".encode(), "k")])
    assert isinstance(alone, Refused)
    assert standard.bodies() == []


async def test_the_limits_are_those_of_the_table_and_raised_by_the_configuration(sink_at: Sinks) -> None:
    limits = sink_at("http://127.0.0.1:1", "q").limits
    assert (limits.records_max, limits.request_bytes_max, limits.record_bytes_max) == (10, 262_144, 262_144)
    assert MESSAGE_BYTES_MAX == 262_144
    raised = sink_at("http://127.0.0.1:1", "q", message_bytes_max=1_048_576).limits
    assert (raised.request_bytes_max, raised.record_bytes_max) == (1_048_576, 1_048_576)


# --- what is not, and what nobody knows ----------------------------------------------------------------------------


async def test_a_lost_reply_is_in_doubt_and_what_is_sent_again_is_there_once(
    fifo: Queue, sink_at: Sinks, aws_url: str
) -> None:
    async with Proxy(aws_url) as proxy:
        sink = sink_at(proxy.url, fifo.name, 0.5)
        await sink.peer_time()
        proxy.drop_replies = True
        with pytest.raises(InDoubt):
            await sink.put([Entry(event(1), "k"), Entry(event(2), "j")])
        proxy.cut()
        proxy.heal()
        proxy.drop_replies = False
        assert list(await sink.put([Entry(event(1), "k"), Entry(event(2), "j")])) == [None, None]
    assert sorted(fifo.bodies()) == sorted([event(1).decode(), event(2).decode()])


async def test_nothing_can_be_read_back(sink_at: Sinks) -> None:
    found = await sink_at("http://127.0.0.1:1", "q").read_back(0, origin_of, records_max=10)
    assert (found.origins, found.is_complete, found.records_read) == (frozenset(), False, 0)
    assert "can't be read back" in found.why


async def test_a_queue_that_is_not_there_is_for_an_operator(sink_at: Sinks, aws_url: str) -> None:
    sink = sink_at(aws_url, "nobodys")
    with pytest.raises(Misconfigured, match="nobodys"):
        await sink.put([Entry(event(1), "k")])
    with pytest.raises(Misconfigured, match="nobodys"):
        await sink.peer_time()


async def test_the_clock_comes_with_every_answer(standard: Queue, sink_at: Sinks, aws_url: str) -> None:
    sink = sink_at(aws_url, standard.name)
    before = await sink.peer_time()
    assert before.latest_ms - before.earliest_ms < 20_000
    assert not await sink.refuses(before.earliest_ms)


# --- answers that emulators don't give -----------------------------------------------------------------------------


def queue_that(send: Callable[[dict[str, Any]], Any], attributes: object = None) -> Answers:
    return {
        "GetQueueUrl": lambda _: {"QueueUrl": "http://q"},
        "SendMessageBatch": send,
        "GetQueueAttributes": lambda _: attributes or {"Attributes": {"QueueArn": "arn"}},
    }


def failing(*failures: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    def answer(asked: dict[str, Any]) -> Any:
        failed = {failure["Id"] for failure in failures}
        stored = [{"Id": entry["Id"]} for entry in asked["Entries"] if entry["Id"] not in failed]
        return {"Successful": stored, "Failed": list(failures)}

    return answer


async def test_messages_fail_singly_for_a_while_or_for_good(sink_at: Sinks) -> None:
    failures = [
        {"Id": "1", "SenderFault": False, "Code": "InternalError"},
        {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"},
        {"Id": "3", "SenderFault": True, "Code": "ThrottlingException"},
        {"Id": "4", "SenderFault": True, "Code": "KmsDisabled"},
    ]
    async with stub(queue_that(failing(*failures))) as service:
        results = await sink_at(service.url, "q").put([Entry(event(n), "k") for n in range(6)])
    refused = results[2]
    assert [*results[:2], *results[3:]] == [None, "InternalError", "ThrottlingException", "KmsDisabled", None]
    assert isinstance(refused, Refused)
    assert "InvalidMessageContents no" in str(refused)


@pytest.mark.parametrize(
    "answer",
    [
        {"Successful": [{"Id": "0"}]},
        {"Successful": [{"Id": "0"}, {"Id": "0"}]},
        {"Failed": 7},
        {},
    ],
)
async def test_an_answer_that_does_not_tell_of_every_message_leaves_them_in_doubt(sink_at: Sinks, answer: Any) -> None:
    async with stub(queue_that(lambda _: answer)) as service:
        with pytest.raises(InDoubt, match="unusable"):
            await sink_at(service.url, "q").put([Entry(event(n), "k") for n in range(2)])


async def test_errors_of_the_whole_request_say_what_they_mean(sink_at: Sinks) -> None:
    expected: list[tuple[str, int, type[Exception], str]] = [
        ("RequestThrottled", 400, TransientError, "throttled"),
        ("BatchRequestTooLong", 400, Refused, ""),
        ("AccessDeniedException", 400, Misconfigured, "AccessDeniedException"),
        ("InternalFailure", 500, InDoubt, ""),
    ]
    for code, status, kind, our_code in expected:
        async with stub(queue_that(lambda _, code=code, status=status: refusal(code, status=status))) as service:
            with pytest.raises(kind) as caught:
                await sink_at(service.url, "q").put([Entry(event(1), "k")])
        assert getattr(caught.value, "code", our_code) == our_code


async def test_an_expired_date_is_refused_and_a_request_of_one_is_late(sink_at: Sinks) -> None:
    expired = "Signature expired: 20261125T000000Z is now earlier than 20261125T000500Z"
    answers = queue_that(lambda _: refusal("InvalidSignatureException", expired))
    answers["GetQueueAttributes"] = lambda _: refusal("SignatureDoesNotMatch", expired, 403)
    async with stub(answers) as service:
        sink = sink_at(service.url, "q")
        assert await sink.refuses(1_000_000)
        with pytest.raises(TransientError) as late:
            await sink.put([Entry(event(1), "k")], signed_ms=1_000_000)
    assert late.value.code == "late"
