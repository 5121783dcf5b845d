"""A queue as a source: one shard whose records are messages, numbered as they come, and deleted when they are done.

How it works: a queue has no places that one could come back to. So messages get numbers of ours, which grow from owner
to owner, and what lasts, the message's id, becomes the sequence of the event's origin. What was received is kept from
other consumers until it is done, then deleted. After a lost owner its messages come back under other numbers, when
their time is over; the claims and the reading back know their events again by origin and id.

Why nothing is lost: a message is deleted when the watermark has passed it, and nothing else deletes it. The tip, behind
which nothing of a lost owner can come any more, is reached only when the queue was empty after all that was kept from
others had time to come back.
"""

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from uuid import UUID

import structlog
from msgspec import Struct

from replicator.aws.failures import OVER_LIMIT
from replicator.aws.kinesis_api import PARTITION_KEY_CHARACTERS_MAX
from replicator.aws.sqs_api import BATCH_MAX, HELD_MAX, HELD_MAX_S, IN_FLIGHT_MAX, Message, SqsApi
from replicator.aws.transport import ServiceError
from replicator.core.model import After, Position, Record, Shard, ShardEnd, ShardId
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Cursor, Page, QueueTroubles, SourceInfo

logger = structlog.get_logger(__name__)

QUEUE = ShardId("queue")
NUMBERS_A_MS = 2**20
RECEIVES_MAX = 10
"""Under way together, when there is more than one of them holds."""
EMPTY_S = 0.3
"""Between two receives of an empty queue where the service does not wait."""
UPKEEP_S = 1.0
LAST_UPKEEP_S = 3.0


HELD_MARGIN_S = 60.0
"""SQS counts from the request: longer ago than we know of by a long poll and its answer."""
NEAR_LIMIT = 0.8
RECEIVES_ADVISED = 100
"""A judgement: a worker that crashes again and again receives a message once in ``visibility_s``."""


class _Kept(Struct):
    """A message that was received: its number, and until when it is ours (monotonic seconds).

    ``received_s``: when. ``is_at_its_end``: its visibility can't be extended any more.
    """

    number: int
    handle: str
    until_s: float
    received_s: float
    is_at_its_end: bool = False


class SqsSource:
    """Implements `ports.Source` and `ports.Queue`.

    ``key_of`` gives the partition key of a body; None: the message's id. Messages of a FIFO queue go under their group.
    """

    def __init__(
        self,
        api: SqsApi,
        *,
        visibility_s: int,
        wait_s: int,
        key_of: Callable[[bytes], str | None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._visibility_s = visibility_s
        self._wait_s = wait_s
        self._key_of = key_of
        self._number = 0
        self._kept: deque[_Kept] = deque()
        """In order of their numbers."""
        self._done: list[_Kept] = []
        """Not deleted yet."""
        self._opened_s = 0.0
        self._is_busy = False
        self._now_s = now_s
        self._receives_max = math.inf
        """Of the redrive policy; what was received more often goes to the dead letters."""
        self._is_near_limit = False
        self._is_over_limit = False
        self._troubles = QueueTroubles()

    # --- reading ---------------------------------------------------------------------------------------------------

    async def describe(self) -> SourceInfo:
        try:
            attributes = await self._api.attributes()
            self._look(attributes)
            return SourceInfo(
                str(round(float(attributes["CreatedTimestamp"]) * 1000)),
                int(attributes["MessageRetentionPeriod"]) * 1000,
            )
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        except (KeyError, ValueError) as exc:
            raise TransientError(f"the attributes of {self._api.queue} can't be read: {exc}", code="bad_reply") from exc

    def _look(self, attributes: Mapping[str, str]) -> None:
        """At what is in flight, and at the redrive policy: each is said when it becomes bad.

        A message that was received more often than maxReceiveCount is moved by SQS, which tells nobody. Source: SQS API
        Reference, "SetQueueAttributes", RedrivePolicy.
        """
        told = attributes.get("ApproximateNumberOfMessagesNotVisible")
        self._troubles.in_flight = None if told is None else int(told)
        is_near = told is not None and int(told) > IN_FLIGHT_MAX * NEAR_LIMIT
        if is_near and not self._is_near_limit:
            logger.error("queue.near_limit", queue=self._api.queue, in_flight=told, limit=IN_FLIGHT_MAX)
        self._is_near_limit = is_near
        policy = json.loads(attributes.get("RedrivePolicy") or "{}")
        receives_max = int(policy.get("maxReceiveCount", 0)) or math.inf
        if receives_max != self._receives_max and receives_max < RECEIVES_ADVISED:
            logger.error(
                "queue.redrive_policy_low",
                queue=self._api.queue,
                max_receive_count=receives_max,
                dead_letters=policy.get("deadLetterTargetArn"),
                advice=f"each lost owner is a receive, and what SQS moves is not replicated: set maxReceiveCount to "
                f"{RECEIVES_ADVISED} or more, or remove the policy",
            )
        self._receives_max = receives_max

    async def shards(self) -> Sequence[Shard]:
        return (Shard(QUEUE),)

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        """Whatever the position is, what follows is what the queue gives; numbers go on behind it.

        What was received before, under a lease that is over, comes again: nobody will say of it that it is done, and a
        word about what comes now must not be taken for one.
        """
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        last = position.sequence if isinstance(position, After) else 0
        self._number = max(last, self._number, int(time.time() * 1000) * NUMBERS_A_MS)
        self._opened_s = self._now_s()
        self._kept.clear()
        return Cursor(shard, position, "receive")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        receives = min(RECEIVES_MAX, max(1, records_max // BATCH_MAX)) if self._is_busy else 1
        wait_s = 0 if receives > 1 else self._wait_s
        try:
            answers = await asyncio.gather(*[self._receive(wait_s) for _ in range(receives)], return_exceptions=True)
            messages = self._taken(answers)
            self._is_over_limit = False
        except TransientError as exc:
            if exc.code == OVER_LIMIT and not self._is_over_limit:
                self._is_over_limit = True
                logger.error("queue.over_limit", queue=self._api.queue, held_here=len(self._kept))  # noqa: TRY400
            raise
        except ServiceError as exc:
            raise self._not_served(exc) from exc
        self._is_busy = len(messages) >= BATCH_MAX
        if not messages and not wait_s:
            await asyncio.sleep(EMPTY_S)
        self._tell_last_receives(messages)
        records = tuple([self._record(message) for message in messages])
        position = After(records[-1].sequence) if records else cursor.position
        return Page(records, Cursor(cursor.shard, position, "receive"), self._behind_ms(records))

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Nobody can tell: a message that was too old left no trace, and what follows depends on no position."""
        del shard, position
        return True

    async def _receive(self, wait_s: int) -> list[Message]:
        return await self._api.receive(self._visibility_s, wait_s)

    def _taken(self, answers: Sequence[list[Message] | BaseException]) -> list[Message]:
        """What some receives have brought is taken, also when others failed: nobody else gets it for a while."""
        messages = [message for answer in answers if not isinstance(answer, BaseException) for message in answer]
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures and not messages:
            raise failures[0]
        return messages

    def _tell_last_receives(self, messages: Sequence[Message]) -> None:
        last = [message for message in messages if _receives(message) >= self._receives_max]
        if last:
            self._troubles.last_receives += len(last)
            logger.error(
                "queue.last_receive",
                queue=self._api.queue,
                messages=len(last),
                first=last[0].message_id,
                advice="if this worker is lost before they are done, SQS moves them to the dead-letter queue, and they "
                "are not replicated; raise maxReceiveCount now, and redrive that queue into this one",
            )

    def _record(self, message: Message) -> Record:
        self._number += 1
        now_s = self._now_s()
        self._kept.append(_Kept(self._number, message.receipt_handle, now_s + self._visibility_s, now_s))
        data = message.body.encode("utf-8", "surrogatepass")
        sent = message.attributes.get("SentTimestamp", "")
        sent_ms = int(sent) if sent.isdecimal() else int(time.time() * 1000)
        key = message.attributes.get("MessageGroupId") or self._key_of(data) or message.message_id
        return Record(data, key[:PARTITION_KEY_CHARACTERS_MAX], str(self._number), sent_ms, 0, _lasting(message))

    def _behind_ms(self, records: Sequence[Record]) -> int:
        now_ms = int(time.time() * 1000)
        if records:
            return max(1, now_ms - records[-1].arrival_ms)
        # What a lost owner had received is not seen before its time is over.
        return 0 if self._now_s() - self._opened_s > self._visibility_s + self._wait_s else 1

    def _not_served(self, exc: ServiceError) -> Misconfigured:
        return Misconfigured(f"queue {self._api.queue}: {exc}; check its name", code=exc.code)

    # --- what is done, and what is not yet -------------------------------------------------------------------------

    def done(self, position: Position) -> None:
        """Everything up to the position is settled."""
        if isinstance(position, After):
            while self._kept and self._kept[0].number <= position.sequence:
                self._done.append(self._kept.popleft())

    def troubles(self) -> QueueTroubles:
        """Since the last call."""
        told, self._troubles = self._troubles, QueueTroubles(in_flight=self._troubles.in_flight)
        return told

    async def run(self, is_held: Callable[[], bool]) -> None:
        """Delete what is done, and keep the rest from others while the lease ``is_held``; else give it back."""
        try:
            while True:
                await asyncio.sleep(UPKEEP_S)
                await self._upkeep(is_held)
        finally:
            with suppress(TimeoutError):  # what is left comes again, and is known
                async with asyncio.timeout(LAST_UPKEEP_S):
                    await self._upkeep(lambda: False)

    async def _upkeep(self, is_held: Callable[[], bool]) -> None:
        try:
            await self._delete_done()
            await (self._keep() if is_held() else self._give_back())
        except (TransientError, Misconfigured, ServiceError) as exc:
            logger.warning("queue.upkeep_failed", queue=self._api.queue, error=str(exc))

    async def _delete_done(self) -> None:
        while self._done:
            batch = self._done[:BATCH_MAX]
            # One that can't be deleted any more comes back and is known by its origin.
            failed = await self._api.delete([kept.handle for kept in batch])
            if failed:
                logger.info("queue.not_deleted", queue=self._api.queue, codes=sorted(set(failed.values())))
            del self._done[: len(batch)]

    async def _keep(self) -> None:
        now_s = self._now_s()
        due_s = now_s + self._visibility_s * 2 / 3
        due = [kept for kept in self._kept if kept.until_s < due_s and not kept.is_at_its_end]
        end_s = now_s + self._visibility_s - HELD_MAX_S + HELD_MARGIN_S
        at_end = [kept for kept in due if kept.received_s < end_s]
        due = [kept for kept in due if kept.received_s >= end_s]
        for start in range(0, len(due), BATCH_MAX):
            batch = due[start : start + BATCH_MAX]
            until_s = self._now_s() + self._visibility_s
            failed = await self._api.keep([kept.handle for kept in batch], self._visibility_s)
            for place, kept in enumerate(batch):
                if failed.get(place) == HELD_MAX:
                    at_end.append(kept)
                    continue
                kept.until_s = until_s
                if place in failed:
                    logger.info("queue.not_kept", queue=self._api.queue, code=failed[place])
        self._tell_ends(at_end)

    def _tell_ends(self, at_end: Sequence[_Kept]) -> None:
        for kept in at_end:
            kept.is_at_its_end = True
        if at_end:
            self._troubles.kept_no_longer += len(at_end)
            logger.error(
                "queue.kept_no_longer",
                queue=self._api.queue,
                messages=len(at_end),
                advice="SQS keeps a message for 12 hours from its receive, then gives it out again; it will be known "
                "by its event and not sent twice. Find out why nothing was settled since: see the link in /status",
            )

    async def _give_back(self) -> None:
        while self._kept:
            batch = [self._kept.popleft() for _ in range(min(BATCH_MAX, len(self._kept)))]
            await self._api.keep([kept.handle for kept in batch], 0)


def _receives(message: Message) -> int:
    count = message.attributes.get("ApproximateReceiveCount", "")
    return int(count) if count.isdecimal() else 0


def _lasting(message: Message) -> str:
    """What of a message stays the same when it comes again, as a number."""
    try:
        return str(UUID(message.message_id).int)
    except ValueError:
        digest = blake2b(message.message_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return str(int.from_bytes(digest, "big"))
