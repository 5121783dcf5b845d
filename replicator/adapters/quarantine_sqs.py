"""Quarantine as messages of a standard SQS queue, where tools and alarms watch; what no message holds is beside it.

How it works: each poison event is one message, its document as text. What the queue will never take, because it is too
large or has characters that SQS refuses, goes to another quarantine beside it. A queue can't be listed, and messages
have no names: whoever asks goes through them once, receiving, and gives them back. To be redriven, documents are
brought beside first, where they have names and an order.

Why nothing is lost: the worker only sends, and an event is put away when SQS says that it has it. A message is deleted
when its document stands beside, and nothing of ours deletes it else. A send that nobody answered is repeated, so that
a document may be there twice; it is one by its link and id.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from replicator.aws.sqs_api import BATCH_MAX, Message, SqsApi
from replicator.core.model import LinkName
from replicator.core.outcome import Passed
from replicator.core.quarantine_document import (
    Document,
    Quarantined,
    decode_document,
    encode_document,
    quarantined_of,
)
from replicator.errors import InDoubt, Refused, StoreUnavailable, TransientError
from replicator.ports import Entry, Kept, Quarantine, QuarantineReader, Sink

logger = structlog.get_logger(__name__)

VISIBILITY_S = 120
"""How long others don't see a message that was received and not given back, as when this process was killed."""
PASS_S = 60.0
"""One going through, well within the visibility of the first message."""
MESSAGES_MAX = 10_000
"""Of one going through; SQS hides 120,000 at most (SQS Developer Guide, "Amazon SQS message quotas")."""
BYTES_MAX = 64 * 1024 * 1024
"""Of documents in memory."""
WAIT_S = 1
"""Any wait makes SQS ask all its servers, so that an empty answer means an empty queue (the same, "Amazon SQS short and
long polling")."""
GIVEN_BACK_AT_ONCE = 10


class Beside(Quarantine, QuarantineReader, Protocol):
    """A quarantine that holds everything, and where documents have names."""


class _Looked(Struct, frozen=True):
    """By link and id: one event may be poison on several links. ``is_all``: there was no more."""

    documents: dict[tuple[str, str], Document]
    is_all: bool

    def of(self, link: LinkName) -> list[Document]:
        return [document for document in self.documents.values() if document.link == link]


class SqsQuarantine:
    """Implements `ports.Quarantine` and `ports.QuarantineReader`; `names` are of what is beside.

    ``sink`` writes the queue that ``api`` reads. What was looked at is looked at once: an instance is for one command.
    """

    def __init__(self, api: SqsApi, sink: Sink, beside: Beside, messages_max: int = MESSAGES_MAX) -> None:
        self._api = api
        self._sink = sink
        self._beside = beside
        self._messages_max = messages_max
        self._looked: _Looked | None = None

    # --- putting away ----------------------------------------------------------------------------------------------

    async def put(self, event: Quarantined) -> None:
        self._looked = None
        refused = await self._sent(encode_document(event))
        if refused is not None:
            about = {"queue": self._api.queue, "link": event.link, "origin": event.origin.key}
            logger.warning("quarantine.beside_the_queue", why=str(refused), **about)
            await self._beside.put(event)

    async def _sent(self, document: bytes) -> Refused | None:
        """Why the queue will never take it; None when it has it."""
        size_max = self._sink.limits.record_bytes_max
        if len(document) > size_max:
            return Refused(f"{len(document)} bytes, and a message holds {size_max}")
        with self._told():
            try:
                [result] = await self._sink.put([Entry(document, "")])
            except Refused as exc:
                return exc
        assert not isinstance(result, Passed), "a queue judges no event"
        if isinstance(result, str):
            raise StoreUnavailable(f"quarantine queue {self._api.queue}: {result}", code=result)
        return result

    # --- what people ask -------------------------------------------------------------------------------------------

    async def kept(self, link: LinkName, newest: int) -> Kept:
        """What is in both places, because a redrive was killed between them, counts once where it is shown."""
        looked = await self._look()
        beside = await self._beside.kept(link, newest)
        queued = looked.of(link)
        shown = {document.id: document for document in [*queued, *beside.newest]}
        twice = len(queued) + len(beside.newest) - len(shown)
        found = sorted(shown.values(), key=lambda document: document.at_ms, reverse=True)
        return Kept(beside.total + len(queued) - twice, found[:newest], looked.is_all)

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        looked = await self._look()
        beside = await self._beside.find(link, document_id)
        queued = [document for document in looked.of(link) if document.id.startswith(document_id)]
        found = {document.id: document for document in [*queued, *beside]}
        if not found and not looked.is_all:
            raise self._too_many(f"no id that begins with {document_id!r} is among those that were looked at")
        return list(found.values())

    async def bring(self, link: LinkName, is_chosen: Callable[[Document], bool], *, is_dry: bool) -> int:
        """How many documents were brought beside, or would be; safe to repeat. Raises StoreUnavailable.

        When it returns, everything that was chosen and that no other consumer was holding stands beside.
        """

        if is_dry:
            looked = await self._look()
            is_all, number = looked.is_all, sum(map(is_chosen, looked.of(link)))
        else:
            is_all, number = await self._bring(lambda document: document.link == link and is_chosen(document))
        if not is_all:
            raise self._too_many("what was brought stays brought; repeat it, or redrive other links first")
        return number

    async def _bring(self, is_wanted: Callable[[Document], bool]) -> tuple[bool, int]:
        self._looked = None
        await self._none_held()
        ids = set[str]()
        async with self._pass() as going:
            async for batch in going.batches():
                wanted = {handle: document for handle, document in batch if is_wanted(document)}
                await asyncio.gather(*(self._beside.put(self._quarantined(each)) for each in wanted.values()))
                await going.delete(list(wanted))
                ids |= {document.id for document in wanted.values()}
        return going.is_whole, len(ids)

    async def _none_held(self) -> None:
        """Raises StoreUnavailable while others have messages: what they give back would be redriven behind newer ones.

        So has a command that was killed, for as long as the visibility lasts.
        """
        with self._told():
            held = int((await self._api.attributes()).get("ApproximateNumberOfMessagesNotVisible", "0"))
        if held:
            who = "another consumer, or a command that was killed, holds"
            what = f"quarantine queue {self._api.queue}: {who} {held} messages; repeat it in {VISIBILITY_S} s"
            raise StoreUnavailable(what, code="held")

    def _quarantined(self, document: Document) -> Quarantined:
        try:
            return quarantined_of(document)
        except ValueError as exc:
            what = f"quarantine queue {self._api.queue}: document {document.id} can't be redriven: {exc}"
            raise StoreUnavailable(f"{what}; move it elsewhere", code="bad_document") from exc

    async def _look(self) -> _Looked:
        if self._looked is None:
            found: dict[tuple[str, str], Document] = {}
            size = 0
            async with self._pass() as going:
                async for batch in going.batches():
                    found |= {(document.link, document.id): document for _, document in batch}
                    size += sum(len(document.data_base64) for _, document in batch)
                    if size > BYTES_MAX:
                        break
            self._looked = _Looked(found, going.is_whole)
        return self._looked

    @asynccontextmanager
    async def _pass(self) -> "AsyncIterator[_Pass]":
        with self._told():
            going = _Pass(self._api, self._messages_max)
            try:
                yield going
            finally:
                await going.give_back()

    def _too_many(self, what: str) -> StoreUnavailable:
        text = f"quarantine queue {self._api.queue} has more messages than one command goes through: {what}"
        return StoreUnavailable(text, code="too_many")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            raise
        except (TransientError, InDoubt, Refused) as exc:
            raise StoreUnavailable(f"quarantine queue {self._api.queue}: {exc}") from exc

    # --- what stands beside ----------------------------------------------------------------------------------------

    async def names(self, link: LinkName) -> Sequence[str]:
        return await self._beside.names(link)

    async def load(self, name: str) -> Document:
        return await self._beside.load(name)

    async def remove(self, name: str) -> None:
        await self._beside.remove(name)

    async def hold(self, link: LinkName, key: str) -> None:
        await self._beside.hold(link, key)

    async def held(self, link: LinkName) -> frozenset[str]:
        return await self._beside.held(link)

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        return await self._beside.held_keys(link)

    async def release(self, link: LinkName, key: str) -> bool:
        return await self._beside.release(link, key)


class _Pass:
    """Once through the messages; what is not deleted is to be given back."""

    def __init__(self, api: SqsApi, messages_max: int) -> None:
        self._api = api
        self._left = messages_max
        self._handles: dict[str, None] = {}
        self.is_whole = False

    async def batches(self) -> AsyncIterator[list[tuple[str, Document]]]:
        """Documents by their receipts, up to ten at once. It ends with the queue (``is_whole``), or at a bound."""
        until_s = time.monotonic() + PASS_S
        while self._left > 0 and time.monotonic() < until_s:
            messages = await self._api.receive(VISIBILITY_S, WAIT_S)
            if not messages:
                self.is_whole = True
                return
            self._left -= len(messages)
            self._handles |= dict.fromkeys(message.receipt_handle for message in messages)
            yield [(message.receipt_handle, self._document(message)) for message in messages]

    def _document(self, message: Message) -> Document:
        try:
            return decode_document(message.body.encode("utf-8", "surrogatepass"))
        except msgspec.DecodeError as exc:
            what = f"message {message.message_id} of quarantine queue {self._api.queue} is no document of ours: {exc}"
            raise StoreUnavailable(f"{what}; move it elsewhere", code="bad_document") from exc

    async def delete(self, handles: Sequence[str]) -> None:
        """Up to ten. Raises StoreUnavailable when one is still there."""
        failed = await self._api.delete(handles) if handles else {}
        for place, handle in enumerate(handles):
            if place not in failed:
                del self._handles[handle]
        if failed:
            codes = ", ".join(sorted(set(failed.values())))
            raise StoreUnavailable(f"{len(failed)} messages of {self._api.queue} were not deleted: {codes}; repeat it")

    async def give_back(self) -> None:
        """What can't be given back comes back by itself, when the visibility ends."""
        handles = list(self._handles)
        tens = [handles[start : start + BATCH_MAX] for start in range(0, len(handles), BATCH_MAX)]
        slots = asyncio.Semaphore(GIVEN_BACK_AT_ONCE)
        await asyncio.gather(*(self._give_back(ten, slots) for ten in tens))

    async def _give_back(self, handles: Sequence[str], slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                failed = sorted(set((await self._api.keep(handles, 0)).values()))
            except (TransientError, Refused) as exc:
                failed = [str(exc)]
        if failed:
            logger.warning("quarantine.not_given_back", queue=self._api.queue, hidden_s=VISIBILITY_S, errors=failed)
