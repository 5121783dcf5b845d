"""What is special about a queue as a quarantine: what it can't hold, how it fails, and what going through it leaves."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from json_stub import Answers, refusal, stub
from msgspec.structs import replace
from poison_queue import PoisonQueue, opened_queue
from test_quarantine import EVENT, LINK, OTHER, put_away

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.core.quarantine_document import encode_document
from replicator.core.queue_messages import MESSAGE_BYTES_MAX
from replicator.errors import StoreUnavailable

QUEUE_URL: Answers = {"GetQueueUrl": lambda asked: {"QueueUrl": f"http://queue/{asked['QueueName']}"}}


@pytest.fixture
async def queue(aws_url: str, new_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[PoisonQueue]:
    async with opened_queue(aws_url, new_name("poison"), tmp_path) as opened:
        yield opened


@pytest.fixture
def sent_to(aws_url: str, new_name: Callable[[str], str], tmp_path: Path) -> Callable[..., Any]:
    """Put the event away at a service that answers so; gives what stands beside."""

    async def send(answer: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        answers = QUEUE_URL | {"SendMessageBatch": answer}
        async with stub(answers) as service, opened_queue(aws_url, new_name("q"), tmp_path, url=service.url) as opened:
            await opened.quarantine.put(EVENT)
            return opened.beside()

    return send


def numbers(documents: list[dict[str, Any]]) -> list[int]:
    return sorted(document["at_ms"] for document in documents)


# --- putting away --------------------------------------------------------------------------------------------------


async def test_a_message_is_the_document_that_the_other_quarantines_keep(queue: PoisonQueue) -> None:
    await queue.quarantine.put(EVENT)
    [document] = queue.messages()
    assert (document["link"], document["reason"], document["attempts"]) == (LINK, EVENT.reason, EVENT.attempts)
    assert (document["origin"], document["partition_key"]) == (EVENT.origin.key, "kéy")
    assert await queue.kept() == [EVENT.data]
    assert not queue.beside()


async def test_the_largest_message_is_taken_and_what_is_larger_stands_beside_with_all_its_bytes(
    queue: PoisonQueue,
) -> None:
    overhead = MESSAGE_BYTES_MAX - 1024
    await queue.quarantine.put(replace(EVENT, data=b"\xff" * (overhead // 4 * 3)))
    assert (len(queue.messages()), len(queue.beside())) == (1, 0)
    large = put_away(7)
    await queue.quarantine.put(replace(large, data=b"\xfe" * MESSAGE_BYTES_MAX))
    assert len(queue.messages()) == 1
    [beside] = queue.beside()
    assert beside["origin"] == large.origin.key
    assert b"\xfe" * MESSAGE_BYTES_MAX in await queue.kept()


async def test_what_has_characters_that_no_message_may_have_stands_beside(queue: PoisonQueue) -> None:
    await queue.quarantine.put(replace(EVENT, partition_key="a\uffffb"))
    assert queue.messages() == []
    assert [document["partition_key"] for document in queue.beside()] == ["a\uffffb"]


@pytest.mark.parametrize("code", ["InvalidMessageContents", "InvalidParameterValue"])
@pytest.mark.parametrize("is_single", [True, False])
async def test_what_the_queue_refuses_for_good_stands_beside(
    sent_to: Callable[..., Any], code: str, is_single: bool
) -> None:
    """As when the queue takes smaller messages only than SQS allows."""
    single = {"Failed": [{"Id": "0", "Code": code, "SenderFault": True, "Message": "too long"}]}
    beside = await sent_to(lambda _: single if is_single else refusal(code))
    assert [document["origin"] for document in beside] == [EVENT.origin.key]


@pytest.mark.parametrize(
    "answer",
    [
        refusal("RequestThrottled"),
        refusal("AccessDeniedException"),
        {"Failed": [{"Id": "0", "Code": "InternalError"}]},
        {"Failed": [{"Id": "0", "Code": "RequestThrottled", "SenderFault": True}]},
        {"Failed": [{"Id": "0", "Code": "AccessDenied", "SenderFault": True}]},
        {"Successful": []},
        web.Response(status=500),
        web.Response(text="<html>"),
    ],
    ids=["throttled", "denied", "failed", "one throttled", "one denied", "says nothing", "no answer", "no SQS"],
)
async def test_what_may_go_later_is_unavailable_and_stands_nowhere_else(
    sent_to: Callable[..., Any], answer: object, tmp_path: Path
) -> None:
    """The worker tries again, and its watermark waits."""
    with pytest.raises(StoreUnavailable, match="quarantine queue q"):
        await sent_to(lambda _: answer)
    assert not list(tmp_path.rglob("*.json"))


async def test_a_throttled_event_is_put_away_when_it_is_tried_again(
    aws_url: str, new_name: Callable[[str], str], tmp_path: Path
) -> None:
    stored = {"Successful": [{"Id": "0"}]}
    answers = iter([refusal("OverLimit"), {"Failed": [{"Id": "0", "Code": "InternalError"}]}, stored])
    async with (
        stub(QUEUE_URL | {"SendMessageBatch": lambda _: next(answers)}) as service,
        opened_queue(aws_url, new_name("q"), tmp_path, url=service.url) as opened,
    ):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await opened.quarantine.put(EVENT)
        await opened.quarantine.put(EVENT)
    bodies = [request["Entries"][0]["MessageBody"] for request in service.requests("SendMessageBatch")]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


async def test_a_missing_queue_is_unavailable_and_named_with_what_to_do(queue: PoisonQueue) -> None:
    queue.client.delete_queue(QueueUrl=queue.url)
    with pytest.raises(StoreUnavailable, match="create it, or correct its name and region"):
        await queue.quarantine.put(EVENT)


# --- going through -------------------------------------------------------------------------------------------------


async def test_who_looks_gives_everything_back_at_once(queue: PoisonQueue) -> None:
    for number in range(13):
        await queue.quarantine.put(put_away(number))
    kept = await queue.quarantine.kept(LINK, 2)
    assert (kept.total, kept.is_all, [document.at_ms for document in kept.newest]) == (13, True, [12, 11])
    assert numbers(queue.messages()) == list(range(13))


async def test_all_links_of_one_command_are_answered_by_one_look(queue: PoisonQueue) -> None:
    """Each look counts as a receive, and a queue's own redrive policy may count those."""
    await queue.quarantine.put(put_away(1))
    for link in (LINK, OTHER, LINK):
        await queue.quarantine.kept(link, 1)
    [message] = queue.client.receive_message(QueueUrl=queue.url, MessageSystemAttributeNames=["All"])["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "2", "one look, and this one"


async def test_an_event_that_is_poison_on_two_links_is_a_document_of_each(queue: PoisonQueue) -> None:
    for number in range(3):
        await queue.quarantine.put(put_away(number))
        await queue.quarantine.put(put_away(number, OTHER))
    for link in (LINK, OTHER):
        assert (await queue.quarantine.kept(link, 1)).total == 3
        assert await queue.quarantine.bring(link, lambda _: True, is_dry=True) == 3


async def test_what_is_beside_and_in_the_queue_is_shown_together_and_once(queue: PoisonQueue) -> None:
    await queue.quarantine.put(replace(put_away(1), data=b"x" * MESSAGE_BYTES_MAX))
    for number in (2, 3):
        await queue.quarantine.put(put_away(number))
    await FileQuarantine(queue.directory).put(put_away(3))  # as after a redrive that was killed
    kept = await queue.quarantine.kept(LINK, 10)
    assert (kept.total, [document.at_ms for document in kept.newest]) == (3, [3, 2, 1])
    assert len(await queue.quarantine.find(LINK, kept.newest[0].id)) == 1


async def test_what_is_brought_stands_beside_and_is_gone_from_the_queue_and_the_rest_stays(queue: PoisonQueue) -> None:
    for number in range(12):
        await queue.quarantine.put(put_away(number))
    await queue.quarantine.put(put_away(3))
    await queue.quarantine.put(put_away(20, OTHER))
    assert await queue.quarantine.bring(LINK, lambda document: document.at_ms < 5, is_dry=True) == 5
    assert len(queue.messages()) == 14
    assert not queue.beside()
    assert await queue.quarantine.bring(LINK, lambda document: document.at_ms < 5, is_dry=False) == 5
    assert numbers(queue.beside()) == [0, 1, 2, 3, 4]
    assert numbers(queue.messages()) == [5, 6, 7, 8, 9, 10, 11, 20]
    assert await queue.quarantine.bring(LINK, lambda document: document.at_ms < 5, is_dry=False) == 0


async def test_nothing_is_brought_while_somebody_else_holds_messages(queue: PoisonQueue) -> None:
    """A redrive that was killed holds what it had received, which would come behind newer events of its key."""
    for number in (1, 2):
        await queue.quarantine.put(put_away(number))
    held = queue.client.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=1, VisibilityTimeout=600)["Messages"]
    with pytest.raises(StoreUnavailable, match="holds 1 messages; repeat it in 120 s"):
        await queue.quarantine.bring(LINK, lambda _: True, is_dry=False)
    assert not queue.beside()
    for message in held:
        queue.client.change_message_visibility(
            QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
    assert await queue.quarantine.bring(LINK, lambda _: True, is_dry=False) == 2


async def test_more_than_one_going_through_takes_is_said_and_loses_nothing(
    aws_url: str, new_name: Callable[[str], str], tmp_path: Path
) -> None:
    async with opened_queue(aws_url, new_name("poison"), tmp_path, messages_max=10) as queue:
        for number in range(15):
            await queue.quarantine.put(put_away(number))
        kept = await queue.quarantine.kept(LINK, 20)
        assert (kept.total, kept.is_all) == (10, False)
        with pytest.raises(StoreUnavailable, match="no id that begins with 'f00' is among those that were looked at"):
            await queue.quarantine.find(LINK, "f00")
        with pytest.raises(StoreUnavailable, match="repeat it"):
            await queue.quarantine.bring(LINK, lambda _: True, is_dry=False)
        assert (len(queue.beside()), len(queue.messages())) == (10, 5)
        assert await queue.quarantine.bring(LINK, lambda _: True, is_dry=False) == 5
        assert numbers(queue.beside()) == list(range(15))


async def test_a_message_of_somebody_else_is_named_and_given_back(queue: PoisonQueue) -> None:
    await queue.quarantine.put(put_away(1))
    queue.client.send_message(QueueUrl=queue.url, MessageBody="[]")
    with pytest.raises(StoreUnavailable, match=r"message [0-9a-f-]+ of quarantine queue .* is no document of ours"):
        await queue.quarantine.kept(LINK, 1)
    assert len(queue.messages()) == 2


async def test_what_was_brought_and_not_deleted_is_said_before_anything_is_redriven(
    aws_url: str, new_name: Callable[[str], str], tmp_path: Path
) -> None:
    """It would come again when it is done and forgotten."""
    batch = [{"MessageId": str(n), "ReceiptHandle": str(n), "Body": body(n)} for n in range(2)]
    answers = QUEUE_URL | {
        "GetQueueAttributes": lambda _: {"Attributes": {"ApproximateNumberOfMessagesNotVisible": "0"}},
        "ReceiveMessage": lambda _: {"Messages": batch},
        "DeleteMessageBatch": lambda _: {
            "Successful": [{"Id": "0"}],
            "Failed": [{"Id": "1", "Code": "InternalError", "SenderFault": False}],
        },
        "ChangeMessageVisibilityBatch": lambda asked: {"Successful": [{"Id": each["Id"]} for each in asked["Entries"]]},
    }
    async with (
        stub(answers) as service,
        opened_queue(aws_url, new_name("q"), tmp_path, url=service.url) as queue,
    ):
        with pytest.raises(StoreUnavailable, match=r"1 messages of q.* were not deleted: InternalError; repeat it"):
            await queue.quarantine.bring(LINK, lambda _: True, is_dry=False)
        assert numbers(queue.beside()) == [0, 1]
    [given_back] = service.requests("ChangeMessageVisibilityBatch")
    assert [(e["ReceiptHandle"], e["VisibilityTimeout"]) for e in given_back["Entries"]] == [("1", 0)]


@pytest.mark.parametrize("answer", [refusal("RequestThrottled"), web.Response(status=503)])
async def test_a_queue_that_gives_nothing_is_unavailable(
    aws_url: str, new_name: Callable[[str], str], tmp_path: Path, answer: web.Response
) -> None:
    async with (
        stub(QUEUE_URL | {"ReceiveMessage": lambda _: answer}) as service,
        opened_queue(aws_url, new_name("q"), tmp_path, url=service.url) as queue,
    ):
        with pytest.raises(StoreUnavailable, match="quarantine queue q"):
            await queue.quarantine.kept(LINK, 1)


def body(number: int) -> str:
    return encode_document(put_away(number)).decode()
