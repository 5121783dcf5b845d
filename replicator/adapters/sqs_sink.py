"""A queue in a peer region as a sink, standard or FIFO: one SendMessageBatch a request.

A standard queue promises neither order nor that a message is there once. A FIFO queue keeps the order of a group, and
drops repetitions for five minutes (`core.queue_messages`). Neither can be read back without taking its messages away.
"""

import time
from collections.abc import Callable, Sequence

from replicator.aws.dated_peer import DatedPeer
from replicator.aws.failures import THROTTLED
from replicator.aws.never_read_back import NeverReadBack
from replicator.aws.sqs_api import BATCH_MAX, Failed, SqsApi
from replicator.aws.transport import ServiceError
from replicator.core.model import Origin
from replicator.core.peer_clock import PeerTime
from replicator.core.queue_messages import MESSAGE_BYTES_MAX, REPEATS_DROPPED_MS, body_of, group_of, repetition_of
from replicator.errors import InDoubt, Refused
from replicator.ports import Entry, SinkLimits

OPERATORS = ("AccessDenied", "Kms", "KMS.")
"""How codes begin that SQS calls the sender's fault and that no message can help."""


class SqsSink(NeverReadBack):
    """Implements `ports.Sink`. ``origin_of`` reads an event's tag; a FIFO queue knows repetitions by it."""

    why = "a queue can't be read back"

    def __init__(
        self,
        api: SqsApi,
        *,
        origin_of: Callable[[bytes], Origin | None],
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._api = api
        self._origin_of = origin_of
        self._is_fifo = api.queue.endswith(".fifo")
        dropped_ms = REPEATS_DROPPED_MS if self._is_fifo else None
        self._limits = SinkLimits(BATCH_MAX, message_bytes_max, message_bytes_max, dropped_ms)
        self._peer = DatedPeer(api.queue, api.ask)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:
        results: list[str | Refused | None] = [None] * len(entries)
        messages = []
        for place, entry in enumerate(entries):
            try:
                messages.append(self._message(place, entry))
            except Refused as exc:
                results[place] = exc
        for failed in await self._send(messages, signed_ms) if messages else ():
            results[int(failed.id)] = self._why(failed)
        return results

    def _message(self, place: int, entry: Entry) -> dict[str, str]:
        """Raises Refused."""
        message = {"Id": str(place), "MessageBody": body_of(entry.data)}
        if self._is_fifo:
            message["MessageGroupId"] = group_of(entry.partition_key)
            message["MessageDeduplicationId"] = repetition_of(self._origin_of(entry.data), entry.data)
        return message

    async def _send(self, messages: Sequence[dict[str, str]], signed_ms: int | None) -> Sequence[Failed]:
        sent_ms = time.time_ns() // 1_000_000
        what = f"SendMessageBatch on {self._api.queue}"
        try:
            reply, failed = await self._api.send(messages, signed_ms)
        except ServiceError as exc:
            raise Refused(f"{what}: {exc}") from exc
        except ValueError as exc:  # msgspec's errors are ValueErrors
            raise InDoubt(f"{what}: unusable answer: {exc}", sent_ms=sent_ms) from exc
        self._peer.answered(reply)
        return failed

    def _why(self, failed: Failed) -> str | Refused:
        if not failed.sender_fault or failed.code in THROTTLED or failed.code.startswith(OPERATORS):
            return failed.code
        return Refused(f"{self._api.queue} takes no such message: {failed.code} {failed.message}".rstrip())

    async def peer_time(self) -> PeerTime:
        return await self._peer.time()

    async def refuses(self, dated_ms: int) -> bool:
        return await self._peer.refuses(dated_ms)
