"""The calls of SQS on one queue, and what they answer."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from replicator.aws.transport import JsonApi, Reply, ServiceError, decoded
from replicator.errors import Misconfigured

SERVICE = "sqs"
PREFIX = "AmazonSQS"

BATCH_MAX = 10
"""Messages of one call. Source: SQS Developer Guide, "Amazon SQS message quotas"; others: `core.queue_messages`."""
HELD_MAX_S = 12 * 3600
"""So long from its receive a message can be kept from others, however often that is extended; what leads beyond is
refused. Source: SQS API Reference, "ChangeMessageVisibility"."""
IN_FLIGHT_MAX = 120_000
"""Received from a queue by anybody and not deleted, about. At it a standard queue answers OverLimit, but to short
polling only; a long poll and a FIFO queue give nothing and say nothing. FIFO queues once had 20,000, and the guides of
some partitions still say so. Source: SQS Developer Guide, "Standard queue quotas" and "FIFO queue quotas"."""
HELD_MAX = "held_max"
"""In place of SQS's code, InvalidParameterValue, for that refusal: an expired handle has the same one."""
BEYOND = "Total VisibilityTimeout for the message is beyond the limit"
"""Reason in its message: "Value 60 for parameter VisibilityTimeout is invalid. Reason: ... [43200 seconds]"."""
SYSTEM_ATTRIBUTES = ("SentTimestamp", "MessageGroupId", "ApproximateReceiveCount")

T = TypeVar("T")


class Message(Struct, rename="pascal"):
    message_id: str
    receipt_handle: str
    body: str
    attributes: dict[str, str] = {}


class _Messages(Struct, rename="pascal"):
    messages: list[Message] = []


class _Attributes(Struct, rename="pascal"):
    attributes: dict[str, str] = {}


class _QueueUrl(Struct, rename="pascal"):
    queue_url: str


class Failed(Struct, rename="pascal"):
    id: str
    code: str
    sender_fault: bool = False
    message: str = ""


class _Successful(Struct, rename="pascal"):
    id: str


class _BatchResult(Struct, rename="pascal"):
    successful: list[_Successful] = []
    failed: list[Failed] = []


_messages = msgspec.json.Decoder(_Messages)
_attributes = msgspec.json.Decoder(_Attributes)
_queue_url = msgspec.json.Decoder(_QueueUrl)
_batch_result = msgspec.json.Decoder(_BatchResult)


class SqsApi:
    """Each call raises TransientError, Misconfigured or ServiceError; the one write InDoubt as well."""

    def __init__(self, api: JsonApi, queue: str, timeout_s: float) -> None:
        self.queue = queue
        self._api = api
        self._timeout_s = timeout_s
        self._url = ""

    async def attributes(self) -> dict[str, str]:
        """CreatedTimestamp and MessageRetentionPeriod in seconds, RedrivePolicy as JSON, and whatever else there is."""
        request = {"QueueUrl": await self._queue_url(), "AttributeNames": ["All"]}
        return (await self._call("GetQueueAttributes", request, _attributes)).attributes

    async def ask(self, signed_ms: int | None) -> Reply:
        """A harmless call, dated ``signed_ms`` (now by default): code ``late`` when that had expired."""
        request = {"QueueUrl": await self._queue_url(), "AttributeNames": ["QueueArn"]}
        return await self._sent("GetQueueAttributes", request, signed_ms=signed_ms)

    async def send(self, entries: Sequence[Mapping[str, object]], signed_ms: int | None) -> tuple[Reply, list[Failed]]:
        """Up to ten, with their places as ids; which of them are not stored. Dated ``signed_ms`` (now by default).

        Raises ValueError when the answer does not say of each what became of it.
        """
        request = {"QueueUrl": await self._queue_url(), "Entries": entries}
        reply = await self._sent("SendMessageBatch", request, is_write=True, signed_ms=signed_ms)
        result = _batch_result.decode(reply.body)
        told = sorted([stored.id for stored in result.successful] + [failed.id for failed in result.failed])
        if told != sorted(str(entry["Id"]) for entry in entries):
            raise ValueError(f"of {len(entries)} messages it tells of {len(told)}")
        return reply, result.failed

    async def receive(self, visibility_s: int, wait_s: int) -> list[Message]:
        """Up to ten; waits for the first one. Others get them when the visibility ends."""
        request = {
            "QueueUrl": await self._queue_url(),
            "MaxNumberOfMessages": BATCH_MAX,
            "VisibilityTimeout": visibility_s,
            "WaitTimeSeconds": wait_s,
            "MessageSystemAttributeNames": SYSTEM_ATTRIBUTES,
        }
        return (await self._call("ReceiveMessage", request, _messages, extra_s=wait_s)).messages

    async def delete(self, handles: Sequence[str]) -> dict[int, str]:
        """Up to ten; by place, the code of those that are not deleted."""
        entries = [{"Id": str(place), "ReceiptHandle": handle} for place, handle in enumerate(handles)]
        return await self._batch("DeleteMessageBatch", entries)

    async def keep(self, handles: Sequence[str], visibility_s: int) -> dict[int, str]:
        """Keep up to ten from others for so long from now on; by place, the code of those that could not be kept."""
        entries = [
            {"Id": str(place), "ReceiptHandle": handle, "VisibilityTimeout": visibility_s}
            for place, handle in enumerate(handles)
        ]
        return await self._batch("ChangeMessageVisibilityBatch", entries)

    async def _batch(self, operation: str, entries: Sequence[Mapping[str, object]]) -> dict[int, str]:
        request = {"QueueUrl": await self._queue_url(), "Entries": entries}
        found = (await self._call(operation, request, _batch_result)).failed
        return {
            int(failed.id): HELD_MAX if BEYOND in failed.message else failed.code
            for failed in found
            if failed.id.isdecimal()
        }

    async def _queue_url(self) -> str:
        if not self._url:
            try:
                found = await self._call("GetQueueUrl", {"QueueName": self.queue}, _queue_url)
            except (ServiceError, Misconfigured) as exc:
                raise Misconfigured(f"queue {self.queue}: {exc}", code=exc.code) from exc
            self._url = found.queue_url
        return self._url

    async def _call(
        self, operation: str, request: Mapping[str, object], decoder: msgspec.json.Decoder[T], extra_s: float = 0
    ) -> T:
        # None of them is a write that could do harm when it is repeated, or when it takes effect unknown to us.
        return decoded(decoder, await self._sent(operation, request, extra_s=extra_s), "SQS")

    async def _sent(
        self,
        operation: str,
        request: Mapping[str, object],
        *,
        is_write: bool = False,
        signed_ms: int | None = None,
        extra_s: float = 0,
    ) -> Reply:
        body = msgspec.json.encode(request)
        signed_s = None if signed_ms is None else signed_ms / 1000
        return await self._api.call(
            operation, body, is_write=is_write, timeout_s=self._timeout_s + extra_s, signed_s=signed_s
        )
