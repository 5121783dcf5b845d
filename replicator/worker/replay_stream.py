"""Replaying from the hub itself: its stream, as if it held nothing but what is chosen of a time.

How it works: the shards are the stream's own, leased under a name of their own, and places in them are the stream's
places; so resharding, resuming and taking over are what they are for any source. A shard begins at the first record of
the time. It ends at its close, at a record that arrived when the time was over, or where nothing follows.

Why it is safe: nobody begins before the time has been over for as long as clocks may differ, so what follows the tip of
a shard, and what is in a shard that was not listed then, arrived later. Arrivals of a shard need not grow one by one:
reading begins a margin before the time and ends a margin behind it, and each record is chosen by its own arrival.
For every place that is nearly as old as the retention a proof is asked for that nothing behind it was trimmed (`kept`);
where there is none, the replay ends with an error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from replicator.core.model import (
    After,
    AtTimestamp,
    LinkName,
    Position,
    Record,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
)
from replicator.errors import TransientError
from replicator.ports import Clock, Cursor, Page, Source, SourceInfo
from replicator.worker.kept import UNKNOWN_MS, Kept, Place
from replicator.worker.replay import Chosen, bar
from replicator.worker.unpacking import UnpackedSource

TRIES_MAX, RETRY_S = 10, 0.5
T = TypeVar("T")


def stream_replay_name(link: LinkName, chosen: Chosen) -> SourceName:
    """The source that a replay from the stream is leased as; no configured source can have this name."""
    return SourceName(f"replay.stream.{chosen.id}.{link}")


class Share(Struct, frozen=True):
    """What a replay takes: events a second of all shards together, GetRecords a second of each."""

    events_per_s: float
    reads_per_s: float

    def records_per_read(self, records_max: int) -> int:
        """As many as make the rate, where they all come from one shard."""
        return max(1, min(records_max, round(self.events_per_s / self.reads_per_s)))


class _Read(Struct):
    """How far a shard was read: up to this sequence number, and this arrival."""

    sequence: int = -1
    at_ms: int = UNKNOWN_MS
    has_ended: bool = False


class StreamReplay:
    """Implements `ports.Source`. ``margin_ms``: so far arrivals and clocks may be off.

    Every method raises ConfigError as well, when what is chosen is no longer there.
    """

    def __init__(self, source: Source, chosen: Chosen, share: Share, *, margin_ms: int, clock: Clock) -> None:
        self._source = source
        self._chosen = chosen
        self.share = share
        self._margin_ms = margin_ms
        self._kept = Kept(source, margin_ms=margin_ms, clock=clock)
        self._shards: tuple[Shard, ...] = ()
        self._readers: dict[ShardId, UnpackedSource] = {}
        self._read: dict[ShardId, _Read] = {}
        self._turn = asyncio.Lock()
        """One page at a time of all shards, so that none may exceed the rate."""
        self._free_s = 0.0
        self.read_number = 0
        """So many events that are chosen were read, each counted once."""

    @property
    def start(self) -> Position:
        return AtTimestamp(self._chosen.since_ms)

    @property
    def progress(self) -> str:
        """In words, behind what the service is doing: where the slowest of the shards stands that are being read."""
        since_ms, until_ms = self._chosen.since_ms, self._chosen.until_ms
        standing = [read.at_ms for read in self._read.values() if not read.has_ended]
        at_ms = min(max(since_ms, min(standing, default=until_ms if self._read else since_ms)), until_ms)
        part = (at_ms - since_ms) / (until_ms - since_ms)
        return f", {self.read_number:,} events read {bar(part)} of the time"

    async def describe(self) -> SourceInfo:
        """Without a retention: here it is an error when something was trimmed, and nothing to be watched."""
        return SourceInfo((await self._kept.describe()).incarnation, 0)

    async def shards(self) -> Sequence[Shard]:
        """Those that were there at the first call; all others hold only what came later."""
        if not self._shards:
            self._shards = tuple(await self._source.shards())
        return self._shards

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        if isinstance(position, ShardEnd):
            return Cursor(shard, position, "")
        at_ms, place = UNKNOWN_MS, position
        if isinstance(position, AtTimestamp):
            at_ms, place = self._begins_ms(shard), AtTimestamp(max(0, self._chosen.since_ms - self._margin_ms))
        with self._kept.all_kept(shard):
            return Place(await self._source.open(shard, place), at_ms).given(position)

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        """What is chosen of a page of the stream."""
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        place = Place.of(cursor)
        with self._kept.all_kept(cursor.shard):
            page, records = await self._in_turn(place.cursor, records_max)
            await self._kept.must_keep(place)
        self._note(cursor.shard, page, records)
        stored = len({record.number for record in records}) if page.stored else 0
        if page.next is None or page.behind_ms == 0 or self._is_past(page):
            self._read[cursor.shard].has_ended = True
            return Page(records, None, 0, stored)
        position = After(records[-1].sequence) if records else cursor.position
        behind = Place(page.next, page.records[-1].arrival_ms if page.records else place.at_ms)
        return Page(records, behind.given(position), page.behind_ms, stored)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        return await self._source.is_kept(shard, position)

    async def events(self, records_max: int) -> AsyncIterator[Record]:
        """All that are chosen, shard by shard; sends nothing and keeps no place."""
        await self.describe()
        for shard in await self.shards():
            cursor: Cursor | None = await self.open(shard.id, self.start)
            while cursor is not None:
                page = await _patiently(partial(self.read, cursor, records_max))
                for record in page.records:
                    yield record
                cursor = page.next
                if cursor is not None:
                    await asyncio.sleep(1 / self.share.reads_per_s)

    async def check(self) -> str:
        """What can't be told of the beginning of the time, in a sentence; "" when all of it is surely kept.

        Costs a read of every shard that has no parent any more. Raises ConfigError when something may be gone.
        """
        await self.describe()
        listed = await self.shards()
        ids = {shard.id for shard in listed}
        oldest = [shard.id for shard in listed if ids.isdisjoint(shard.parents)]
        starts = [Place(Cursor(shard, self.start, ""), self._chosen.since_ms) for shard in oldest]
        unsure = []
        for place in starts:
            with self._kept.all_kept(place.cursor.shard):
                if not await _patiently(partial(self._kept.is_all_kept, place)):
                    unsure.append(place.cursor.shard)
        if unsure and self._chosen.since_ms < self._kept.horizon_ms():
            raise self._kept.gone(unsure[0])
        if not unsure:
            return ""
        return (
            f"{len(unsure)} of {len(oldest)} shards keep nothing that is as old as --since. Either nothing came then,"
            " or the stream's retention was shorter until lately, and what came then is gone: --from lake would have it"
        )

    # --- what is read ----------------------------------------------------------------------------------------------

    async def _in_turn(self, place: Cursor, records_max: int) -> tuple[Page, tuple[Record, ...]]:
        """A page of the stream, and what is chosen of it."""
        reader = self._readers.setdefault(place.shard, UnpackedSource(self._source))
        async with self._turn:
            await asyncio.sleep(self._free_s - _now_s())
            page = await reader.read(place, records_max)
            records = tuple(record for record in page.records if self._chosen.has(record.arrival_ms, record.data))
            self._free_s = _now_s() + len(records) / self.share.events_per_s
        return page, records

    def _is_past(self, page: Page) -> bool:
        over_ms = self._chosen.until_ms + self._margin_ms
        return any(record.arrival_ms >= over_ms for record in page.records)

    def _note(self, shard: ShardId, page: Page, records: Sequence[Record]) -> None:
        read = self._read.setdefault(shard, _Read())
        self.read_number += sum(record.sequence > read.sequence for record in records)
        if page.records:
            read.sequence = max(read.sequence, page.records[-1].sequence)
            read.at_ms = max(read.at_ms, page.records[-1].arrival_ms)

    # --- what is kept ----------------------------------------------------------------------------------------------

    def _begins_ms(self, shard: ShardId) -> int:
        """Nothing of the shard that is chosen arrived before: neither the time began, nor were its parents closed."""
        parents = [parent for each in self._shards if each.id == shard for parent in each.parents]
        return max([self._chosen.since_ms, *[self._read[each].at_ms for each in parents if each in self._read]])


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The call's answer, where no service repeats it: a shard that workers read too may have none left to serve.

    Raises TransientError after `TRIES_MAX` tries.
    """
    for _ in range(TRIES_MAX - 1):
        try:
            return await call()
        except TransientError as exc:
            await asyncio.sleep(exc.retry_after_s or RETRY_S)
    return await call()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
