"""A bus as a sink, against moto: what is put comes out of its rules, and what is not is said."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from json_stub import Answers, refusal, stub

from replicator.adapters.eventbridge_sink import EventBridgeSink
from replicator.aws.eventbridge_api import PREFIX, SERVICE, EventBridgeApi
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.core.bus_entries import REQUEST_BYTES_MAX, BusEntries
from replicator.core.messages import MessageFormat
from replicator.dev.proxy import Proxy
from replicator.errors import InDoubt, Misconfigured, Refused, TransientError
from replicator.ports import Entry

REGION = "us-east-1"
TAG = {"v": 1, "gen": 1, "origin": [REGION, "q", "1", "queue", "5", 0], "id": "e", "path": [REGION], "at": 1}


def event(number: int, **more: Any) -> bytes:
    return json.dumps({"_replicator": TAG, "type": "paid", "n": number, **more}).encode()


class Bus:
    """With a rule that sends all events to a queue."""

    def __init__(self, url: str, name: str) -> None:
        self.events: Any = boto3.client("events", region_name=REGION, endpoint_url=url)
        self.queues: Any = boto3.client("sqs", region_name=REGION, endpoint_url=url)
        self.name = name
        self.events.create_event_bus(Name=name)
        self.url = self.queues.create_queue(QueueName=name)["QueueUrl"]
        asked = self.queues.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"account": [{"exists": True}]}))
        target = {"Id": "1", "Arn": asked["Attributes"]["QueueArn"]}
        self.events.put_targets(Rule=name, EventBusName=name, Targets=[target])

    def received(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while messages := self.queues.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return found


Sinks = Callable[..., EventBridgeSink]


@pytest.fixture
async def http() -> AsyncIterator[HttpPool]:
    async with HttpPool(4) as opened:
        yield opened


@pytest.fixture
def sink_at(http: HttpPool) -> Sinks:
    def made(url: str, name: str, timeout_s: float = 5.0, **more: Any) -> EventBridgeSink:
        api = JsonApi(http, AwsSession(), service=SERVICE, region=REGION, url=url, prefix=PREFIX)
        return EventBridgeSink(EventBridgeApi(api, name, timeout_s), entries=BusEntries("replicator", None), **more)

    return made


@pytest.fixture
def bus(aws_url: str, new_name: Callable[[str], str]) -> Bus:
    return Bus(aws_url, new_name("bus"))


# --- what is stored ------------------------------------------------------------------------------------------------


async def test_an_event_comes_out_of_the_bus_under_its_type_as_it_was(bus: Bus, sink_at: Sinks, aws_url: str) -> None:
    sink = sink_at(aws_url, bus.name)
    assert list(await sink.put([Entry(event(n, s="käse"), "k") for n in range(10)])) == [None] * 10
    received = bus.received()
    assert sorted(found["detail"]["n"] for found in received) == list(range(10))
    for found in received:
        assert (found["source"], found["detail-type"]) == ("replicator", "paid")
        assert found["detail"] == json.loads(event(found["detail"]["n"], s="käse"))


async def test_an_event_of_a_bus_comes_out_as_it_had_come_in_with_its_tag_in_the_detail(
    bus: Bus, sink_at: Sinks, aws_url: str
) -> None:
    sent = {"Source": "shop", "DetailType": "paid", "Detail": '{"id": "e-1"}', "Resources": ["arn:r"]}
    bus.events.put_events(Entries=[{**sent, "EventBusName": bus.name}])
    [before] = bus.received()
    decoded = MessageFormat("eventbridge", ["detail", "id"]).decode(json.dumps(before).encode())
    data = decoded.with_tag(json.dumps(TAG).encode())
    assert list(await sink_at(aws_url, bus.name).put([Entry(data, "k")])) == [None]
    [after] = bus.received()
    same = ("source", "detail-type", "resources")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert after["detail"] == {"_replicator": TAG, "id": "e-1"}
    assert MessageFormat("eventbridge", ["detail", "id"]).decode(json.dumps(after).encode()).drop == "replica"


async def test_what_a_bus_does_not_take_is_refused_and_the_others_are_stored(
    bus: Bus, sink_at: Sinks, aws_url: str
) -> None:
    sink = sink_at(aws_url, bus.name)
    results = await sink.put([Entry(event(1), "k"), Entry(b'{"n":2}', "k"), Entry(event(3), "k")])
    assert [results[0], results[2]] == [None, None]
    assert isinstance(results[1], Refused)
    assert sorted(found["detail"]["n"] for found in bus.received()) == [1, 3]


async def test_one_entry_over_the_limit_is_refused_alone_and_all_of_a_request_together(
    bus: Bus, sink_at: Sinks, aws_url: str
) -> None:
    sink = sink_at(aws_url, bus.name, request_bytes_max=1024)
    [alone] = await sink.put([Entry(event(1, x="x" * 1024), "k")])
    assert isinstance(alone, Refused)
    with pytest.raises(Refused, match="in one request"):
        await sink.put([Entry(event(n, x="x" * 500), "k") for n in range(2)])
    assert bus.received() == []
    limits = sink_at(aws_url, bus.name).limits
    assert (limits.records_max, limits.request_bytes_max, limits.repeats_dropped_ms) == (10, REQUEST_BYTES_MAX, None)
    assert REQUEST_BYTES_MAX == 262_144


# --- what is not, and what nobody knows ----------------------------------------------------------------------------


async def test_a_lost_reply_is_in_doubt_and_what_is_sent_again_may_be_there_twice(
    bus: Bus, sink_at: Sinks, aws_url: str
) -> None:
    async with Proxy(aws_url) as proxy:
        sink = sink_at(proxy.url, bus.name, 0.5)
        proxy.drop_replies = True
        with pytest.raises(InDoubt):
            await sink.put([Entry(event(1), "k")])
        proxy.cut()
        proxy.heal()
        proxy.drop_replies = False
        assert list(await sink.put([Entry(event(1), "k")])) == [None]
    received = bus.received()
    assert [found["detail"]["n"] for found in received] == [1, 1]
    assert len({found["id"] for found in received}) == 2


async def test_nothing_can_be_read_back(sink_at: Sinks) -> None:
    found = await sink_at("http://127.0.0.1:1", "b").read_back(0, lambda _: None, records_max=10)
    assert (found.origins, found.is_complete) == (frozenset(), False)


async def test_a_bus_that_is_not_there_is_for_an_operator(sink_at: Sinks, aws_url: str) -> None:
    with pytest.raises(Misconfigured, match="nobodys"):
        await sink_at(aws_url, "nobodys").peer_time()


async def test_the_clock_comes_with_every_answer(bus: Bus, sink_at: Sinks, aws_url: str) -> None:
    sink = sink_at(aws_url, bus.name)
    told = await sink.peer_time()
    assert told.latest_ms - told.earliest_ms < 20_000
    assert not await sink.refuses(told.earliest_ms)


# --- answers that emulators don't give -----------------------------------------------------------------------------


def bus_that(put: Callable[[dict[str, Any]], Any]) -> Answers:
    return {"PutEvents": put, "DescribeEventBus": lambda _: {"Name": "b"}}


async def test_entries_fail_singly_for_a_while_or_for_good(sink_at: Sinks) -> None:
    codes = [None, "InternalFailure", "ThrottlingException", "MalformedDetail", "NotAuthorizedForSourceException"]
    puts = [{"EventId": "1"} if code is None else {"ErrorCode": code, "ErrorMessage": "no"} for code in codes]
    async with stub(bus_that(lambda _: {"FailedEntryCount": 4, "Entries": puts})) as service:
        entries = [Entry(b"not json", "k"), *[Entry(event(n), "k") for n in range(5)]]
        results = await sink_at(service.url, "b").put(entries)
    assert list(results[1:4]) == codes[:3]
    for refused, why in zip((results[0], *results[4:]), ("JSON", "MalformedDetail no", "NotAuthorized"), strict=True):
        assert isinstance(refused, Refused)
        assert why in str(refused)


async def test_a_request_names_the_bus_and_takes_time_and_trace_along(sink_at: Sinks) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    envelope = {"detail-type": "paid", "source": "shop", "time": "2015-12-22T18:43:48Z", "detail": {"n": 1}}
    datas = [json.dumps({"_replicator": TAG, **envelope}).encode(), event(2, traceparent=trace)]
    async with stub(bus_that(lambda _: {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}] * 2})) as service:
        await sink_at(service.url, "b").put([Entry(data, "k") for data in datas])
        [request] = service.requests("PutEvents")
    first, second = request["Entries"]
    assert {entry["EventBusName"] for entry in (first, second)} == {"b"}
    assert (first["Time"], "TraceHeader" in first) == (1_450_809_828, False)
    assert "Time" not in second
    assert second["TraceHeader"] == "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1"
    assert second["Detail"].encode() == datas[1]


@pytest.mark.parametrize(
    "answer",
    [
        {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
        {"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, {"EventId": "2"}]},
        {},
    ],
)
async def test_an_answer_that_does_not_tell_of_every_entry_leaves_them_in_doubt(sink_at: Sinks, answer: Any) -> None:
    async with stub(bus_that(lambda _: answer)) as service:
        with pytest.raises(InDoubt, match="unusable"):
            await sink_at(service.url, "b").put([Entry(event(n), "k") for n in range(2)])


async def test_errors_of_the_whole_request_say_what_they_mean(sink_at: Sinks) -> None:
    expected: list[tuple[str, int, type[Exception]]] = [
        ("ThrottlingException", 400, TransientError),
        ("ValidationException", 400, Refused),
        ("AccessDeniedException", 400, Misconfigured),
        ("InternalException", 500, InDoubt),
    ]
    for code, status, kind in expected:
        async with stub(bus_that(lambda _, code=code, status=status: refusal(code, status=status))) as service:
            with pytest.raises(kind):
                await sink_at(service.url, "b").put([Entry(event(1), "k")])
