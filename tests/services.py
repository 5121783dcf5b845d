"""What services write to queues and buses, as many in a call as AWS takes. ``client`` is boto3's."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

BATCH_MAX = 10
"""Of SendMessageBatch and of PutEvents."""

T = TypeVar("T")
Message = tuple[str, str, str]
"""Id, key and body. The key orders messages of a FIFO queue, the id is what its repetitions are known by."""


def send(client: Any, queue: str, messages: Sequence[Message]) -> None:
    """To a queue, standard or FIFO by its name."""
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    for batch in _batches(messages):
        entries = [{"Id": id_, "MessageBody": body} for id_, _, body in batch]
        if queue.endswith(".fifo"):
            for entry, (id_, key, _) in zip(entries, batch, strict=True):
                entry |= {"MessageGroupId": key, "MessageDeduplicationId": id_}
        failed = client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        assert not failed, failed


def put_on_bus(client: Any, bus: str, details: Sequence[str]) -> None:
    """Events of the shop."""
    for batch in _batches(details):
        entries = [{"EventBusName": bus, "Source": "shop", "DetailType": "sold", "Detail": detail} for detail in batch]
        reply = client.put_events(Entries=entries)
        assert reply["FailedEntryCount"] == 0, reply


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_MAX):
        yield items[start : start + BATCH_MAX]
