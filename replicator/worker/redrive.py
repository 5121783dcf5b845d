"""Redriving: what is in quarantine goes through the pipeline again, like the messages of a queue.

How it works: the documents of one link, in order of their origins, are the records of a shard of their own, which is
leased, claimed, published and checkpointed like any other. What the watermark has passed is removed from quarantine;
what is still poison stays there as it is, and so does, where the link holds keys, what follows it of its key.

Why it is safe: a document is removed only when its event is done. A redrive that died is taken over like any shard: its
lease runs out, and the next one reads the peer back before it sends. Two redrives of one link exclude each other by the
lease. Events keep the origins they were born with, so nothing that knew them takes them for others.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from msgspec import Struct

from replicator.core.formats import Format
from replicator.core.model import (
    After,
    LinkName,
    Position,
    Record,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
    parse_origin,
)
from replicator.core.quarantine_document import Document, Quarantined, document_id, key_digest
from replicator.core.skim import skim_nothing
from replicator.errors import StoreUnavailable
from replicator.ports import Cursor, Page, Quarantine, QuarantineReader, QueueTroubles, SourceInfo
from replicator.worker.replay import bar

logger = structlog.get_logger(__name__)

REDRIVE = ShardId("redrive")
NUMBERS_A_MS = 2**20
UPKEEP_S = 0.2
LAST_UPKEEP_S = 5.0
INCARNATION = "0"


def redrive_name(link: LinkName) -> SourceName:
    """The source that a redrive is leased as; no configured source can have this name."""
    return SourceName(f"redrive.{link}")


class OwnQuarantine:
    """What `ports.Quarantine` is to a redrive and to a replay: poison is counted, and keys are held for them alone."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._held: set[str] = set()

    async def put(self, event: Quarantined) -> bool | None:
        """As `ports.Quarantine.put`."""
        self.reasons[event.reason] += 1
        return None

    async def hold(self, _: LinkName, key: str) -> None:
        self._held.add(key)

    async def held(self, _: LinkName) -> frozenset[str]:
        return frozenset(map(key_digest, self._held))

    async def held_keys(self, _: LinkName) -> Sequence[str]:
        return sorted(self._held)

    async def release(self, _: LinkName, __: str) -> bool:
        return False


class Stays(OwnQuarantine):
    """For a redrive: nothing is written, what is still poison stays where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()

    async def put(self, event: Quarantined) -> bool:
        await super().put(event)
        self.ids.add(document_id(event.origin.key))
        return False


class PutAway(OwnQuarantine):
    """For a replay: what is poison by the rules of now goes to the link's quarantine, from where it can be redriven."""

    def __init__(self, quarantine: Quarantine) -> None:
        super().__init__()
        self._quarantine = quarantine

    async def put(self, event: Quarantined) -> None:
        await self._quarantine.put(event)
        await super().put(event)


class Unskimmed:
    """A format whose events are all decoded in full: the short way knows origins by their place in a shard only."""

    def __init__(self, inner: Format) -> None:
        self.decode = inner.decode
        self.skim = skim_nothing


class _Given(Struct):
    number: int
    name: str
    id: str


class RedriveSource:
    """Implements `ports.Source` and `ports.Queue`. ``names``: of the documents, in the order to be redriven."""

    def __init__(self, quarantine: QuarantineReader, names: Sequence[str], stays: Stays) -> None:
        self._quarantine = quarantine
        self._names = list(names)
        self._stays = stays
        self._next = 0
        self._number = 0
        self._given: deque[_Given] = deque()
        self._done: list[_Given] = []
        self.removed = 0

    @property
    def progress(self) -> str:
        """In words, behind what the service is doing."""
        done, total = self._next - len(self._given), len(self._names)
        return f", {done:,} of {total:,} documents done {bar(done / max(1, total))}"

    @property
    def is_over(self) -> bool:
        """Whether every document is removed, or stays."""
        return self._next == len(self._names) and not self._given and not self._done

    async def describe(self) -> SourceInfo:
        return SourceInfo(INCARNATION, 0)

    async def shards(self) -> Sequence[Shard]:
        return (Shard(REDRIVE),)

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        """From the first document that is not done, under numbers behind the position."""
        last = position.sequence if isinstance(position, After) else 0
        self._number = max(last, self._number, int(time.time() * 1000) * NUMBERS_A_MS)
        self._next -= len(self._given)
        self._given.clear()
        return Cursor(shard, position, "documents")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        names = self._names[self._next : self._next + records_max]
        loaded = [(name, await self._quarantine.load(name)) for name in names]
        records = [self._record(name, document) for name, document in loaded]
        self._next += len(records)
        position = After(records[-1].sequence) if records else cursor.position
        behind_ms = 0 if self._next == len(self._names) else 1
        return Page(tuple(records), Cursor(cursor.shard, position, "documents"), behind_ms)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Documents stay until they are removed."""
        del shard, position
        return True

    def _record(self, name: str, document: Document) -> Record:
        self._number += 1
        self._given.append(_Given(self._number, name, document.id))
        origin = parse_origin(document.origin)
        return Record(document.data, document.partition_key, str(self._number), document.at_ms, 0, origin)

    def done(self, position: Position) -> None:
        """As `ports.Queue.done`."""
        if isinstance(position, After):
            while self._given and self._given[0].number <= position.sequence:
                self._done.append(self._given.popleft())

    def troubles(self) -> QueueTroubles:
        """It has none."""
        return QueueTroubles()

    async def run(self, _: Callable[[], bool]) -> None:
        """Remove what is done, until cancelled."""
        try:
            while True:
                await asyncio.sleep(UPKEEP_S)
                await self._remove()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_UPKEEP_S):
                    await self._remove()

    async def _remove(self) -> None:
        try:
            while self._done:
                document = self._done[0]
                if document.id not in self._stays.ids:
                    await self._quarantine.remove(document.name)
                    self.removed += 1
                del self._done[0]
        except StoreUnavailable as exc:
            logger.warning("redrive.not_removed", error=str(exc))
