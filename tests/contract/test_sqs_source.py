"""A queue as a source, against moto: what is received stays ours until it is done, and is deleted then."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import boto3
import pytest

from replicator.adapters.sqs_source import QUEUE, SqsSource
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.sqs_api import PREFIX, Message, SqsApi
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.core.messages import MessageFormat, text_at
from replicator.core.model import After, Position, SequenceNumber, ShardEnd, TrimHorizon
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Cursor, Page

REGION = "us-east-1"


class Queue:
    def __init__(self, url: str, name: str, api: JsonApi) -> None:
        self.client: Any = boto3.client("sqs", region_name=REGION, endpoint_url=url)
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        self.url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self._json = api
        self.name = name
        self.api = SqsApi(api, name, 5.0)

    def source(self, *, visibility_s: int = 10, name: str | None = None) -> SqsSource:
        api = SqsApi(self._json, name or self.name, 5.0)
        return SqsSource(api, visibility_s=visibility_s, wait_s=0, key_of=lambda body: text_at(body, ["key"]))

    def send(self, *bodies: object, **more: Any) -> list[str]:
        texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        return [self.client.send_message(QueueUrl=self.url, MessageBody=text, **more)["MessageId"] for text in texts]

    def count(self, *, hidden: bool = False) -> int:
        name = f"ApproximateNumberOfMessages{'NotVisible' if hidden else ''}"
        reply = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])
        return int(reply["Attributes"][name])


@pytest.fixture
async def api(aws_url: str) -> AsyncIterator[JsonApi]:
    async with HttpPool(16) as http:
        yield JsonApi(
            http, AwsSession(), service="sqs", region=REGION, url=aws_url, prefix=PREFIX, content_type=JSON_1_0
        )


@pytest.fixture
def queue(aws_url: str, api: JsonApi, new_name: Callable[[str], str]) -> Queue:
    return Queue(aws_url, new_name("queue"), api)


START = TrimHorizon()


async def first_page(source: SqsSource, position: Position = START) -> Page:
    return await source.read(await source.open(QUEUE, position), 100)


def following(page: Page) -> Cursor:
    assert page.next is not None
    return page.next


async def upkeep(source: SqsSource, *, is_held: bool = True) -> None:
    await source._upkeep(lambda: is_held)


async def until_hidden_is(queue: Queue, count: int) -> None:
    async with asyncio.timeout(10):
        while queue.count(hidden=True) != count:
            await asyncio.sleep(0.1)


async def test_messages_come_with_growing_numbers_under_the_key_in_their_body(queue: Queue) -> None:
    ids = queue.send({"key": "a", "n": 0}, {"n": 1}, {"key": "a", "n": 2})
    began_ms = int(time.time() * 1000)
    page = await first_page(queue.source())
    records = {json.loads(record.data)["n"]: record for record in page.records}
    assert [records[n].partition_key for n in range(3)] == ["a", ids[1], "a"]
    assert [records[n].lasting for n in range(3)] == [str(UUID(message_id).int) for message_id in ids]
    sequences = [record.sequence for record in page.records]
    assert sequences == sorted(set(sequences))
    assert all(abs(record.arrival_ms - began_ms) < 60_000 for record in page.records)
    assert page.behind_ms > 0


async def test_a_busy_queue_is_read_by_several_receives_and_every_message_comes_once(queue: Queue) -> None:
    queue.send(*[{"n": n} for n in range(95)])
    source = queue.source()
    page = await first_page(source)
    pages = [page]
    while len(pages) < 4:
        page = await source.read(following(page), 100)
        pages.append(page)
    numbers = [json.loads(record.data)["n"] for page in pages for record in page.records]
    assert sorted(numbers) == list(range(95))
    assert max(len(page.records) for page in pages) > 10


async def test_what_is_done_is_deleted_and_nothing_else(queue: Queue) -> None:
    queue.send(*[{"n": n} for n in range(5)])
    source = queue.source()
    page = await first_page(source)
    await upkeep(source)
    assert queue.count(hidden=True) == 5
    source.done(After(page.records[2].sequence))
    await upkeep(source)
    assert (queue.count(), queue.count(hidden=True)) == (0, 2)
    source.done(After(page.records[-1].sequence))
    await upkeep(source)
    assert (queue.count(), queue.count(hidden=True)) == (0, 0)


async def test_what_is_not_done_is_kept_from_others_for_as_long_as_the_lease_is_held(queue: Queue) -> None:
    queue.send({"n": 1})
    source = queue.source(visibility_s=2)
    await first_page(source)
    for _ in range(4):
        await asyncio.sleep(1)
        await upkeep(source)
        assert queue.count() == 0
    await upkeep(source, is_held=False)
    assert queue.count() == 1


async def test_a_lost_owners_messages_come_back_under_higher_numbers_and_the_same_identity(queue: Queue) -> None:
    queue.send({"n": 1})
    [before] = (await first_page(queue.source(visibility_s=1))).records
    await asyncio.sleep(1.1)
    [again] = (await first_page(queue.source(), After(before.sequence))).records
    assert again.sequence > before.sequence
    assert again.lasting == before.lasting
    far = SequenceNumber(before.sequence * 2)
    queue.send({"n": 2})
    assert (await first_page(queue.source(), After(far))).records[0].sequence > far


async def test_a_word_about_what_comes_now_is_none_about_what_came_under_an_earlier_lease(queue: Queue) -> None:
    queue.send({"n": 1})
    source = queue.source(visibility_s=1)
    await first_page(source)
    queue.send({"n": 2})
    page = await first_page(source)
    assert [json.loads(record.data)["n"] for record in page.records] == [2]
    source.done(After(page.records[-1].sequence))
    await upkeep(source)
    await asyncio.sleep(1.1)
    assert queue.count() == 1


async def test_an_empty_queue_is_the_tip_only_when_what_others_held_had_time_to_come_back(queue: Queue) -> None:
    source = queue.source(visibility_s=1)
    page = await first_page(source)
    assert (page.records, page.behind_ms > 0) == ((), True)
    await asyncio.sleep(1.1)
    page = await source.read(following(page), 100)
    assert (page.records, page.behind_ms) == ((), 0)
    assert await first_page(source, ShardEnd()) == Page((), None, 0)


async def test_draining_deletes_and_gives_back_at_the_end(queue: Queue) -> None:
    queue.send({"n": 1}, {"n": 2})
    source = queue.source(visibility_s=600)
    page = await first_page(source)
    running = asyncio.create_task(source.run(lambda: True))
    await asyncio.sleep(0)
    source.done(After(page.records[0].sequence))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (queue.count(), queue.count(hidden=True)) == (1, 0)


async def test_messages_of_a_fifo_queue_go_under_their_group_in_order(
    aws_url: str, api: JsonApi, new_name: Callable[[str], str]
) -> None:
    queue = Queue(aws_url, f"{new_name('queue')}.fifo", api)
    for number in range(6):
        queue.send({"n": number, "key": "x"}, MessageGroupId=f"g{number % 2}", MessageDeduplicationId=str(number))
    source = queue.source()
    page = await first_page(source)
    seen: dict[str, list[int]] = {"g0": [], "g1": []}
    while page.records:
        for record in page.records:
            seen[record.partition_key].append(json.loads(record.data)["n"])
        source.done(After(page.records[-1].sequence))
        await upkeep(source)
        page = await source.read(following(page), 100)
    assert seen == {"g0": [0, 2, 4], "g1": [1, 3, 5]}


async def test_the_incarnation_is_the_queues_creation(queue: Queue) -> None:
    info = await queue.source().describe()
    assert abs(int(info.incarnation) - time.time() * 1000) < 60_000
    assert info.retention_ms == 345_600 * 1000
    assert [shard.id for shard in await queue.source().shards()] == [QUEUE]


async def test_a_queue_that_is_not_there_is_for_an_operator(queue: Queue) -> None:
    with pytest.raises(Misconfigured):
        await queue.source(name="nobodys").describe()


async def test_what_some_receives_brought_is_taken_though_others_failed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send(*[{"n": n} for n in range(40)])
    source = queue.source()
    page = await first_page(source)
    calls = 0
    receive = SqsApi.receive

    async def failing(self: SqsApi, visibility_s: int, wait_s: int) -> list[Message]:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise TransientError("throttled", code="throttled")
        return await receive(self, visibility_s, wait_s)

    monkeypatch.setattr(SqsApi, "receive", failing)
    assert (await source.read(following(page), 40)).records
    calls = -1000
    monkeypatch.setattr(SqsApi, "receive", never)
    with pytest.raises(TransientError):
        await source.read(following(page), 10)


async def never(self: SqsApi, visibility_s: int, wait_s: int) -> list[Message]:
    raise TransientError("throttled", code="throttled")


async def test_events_of_a_bus_come_through_its_rule_which_leaves_replicas_out(queue: Queue, aws_url: str) -> None:
    bus: Any = boto3.client("events", region_name=REGION, endpoint_url=aws_url)
    arn = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": [queue.name], "detail": {"_replicator": {"v": [{"exists": False}]}}}
    bus.put_rule(Name=queue.name, EventPattern=json.dumps(pattern))
    bus.put_targets(Rule=queue.name, Targets=[{"Id": "1", "Arn": arn}])
    details = [{"id": "e-1", "orderId": 7}, {"id": "e-2", "_replicator": {"v": 1}}]
    entries = [{"Source": queue.name, "DetailType": "paid", "Detail": json.dumps(detail)} for detail in details]
    assert bus.put_events(Entries=entries)["FailedEntryCount"] == 0
    page = await first_page(queue.source())
    [record] = page.records
    decoded = MessageFormat("eventbridge", ["detail", "id"]).decode(record.data)
    assert (decoded.event_id, decoded.drop) == ("e-1", "")
    assert text_at(record.data, ["detail", "orderId"]) == "7"
    assert text_at(record.data, ["detail-type"]) == "paid"
