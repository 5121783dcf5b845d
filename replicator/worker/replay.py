"""Replaying: what the lake keeps of a time goes through the pipeline again, over one link.

How it works: the events of the time, in the order of the hub, are the records of a shard of their own, numbered as they
come; so a place in them is a number, and the lease's checkpoint remembers it. Objects of one shard are merged by
sequence number and what stands in two of them is dropped, so the numbering is the same whenever it is done again.

Why it is safe: it is leased, claimed, published and checkpointed like any shard, and events keep the origins they were
born with. What the peer has already, from the first time or from a replay that died, is found there before anything is
sent.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct

from replicator.core.lake import Archived, Run, day_prefixes, is_within, run_of
from replicator.core.model import After, LinkName, Position, Record, Region, Shard, ShardEnd, ShardId, SourceName
from replicator.errors import StoreUnavailable
from replicator.ports import Cursor, LakeReader, Page, QueueTroubles, SourceInfo

INCARNATION = "0"
BAR_WIDTH = 20


class Chosen(Struct, frozen=True):
    """Which events: that arrived in the hub within these times (the later one excluded), of these types (none: any).

    ``once_more`` is a word that nobody else uses, for what is to be sent whether it was replayed before or not.
    """

    since_ms: int
    until_ms: int
    types: tuple[str, ...] = ()
    once_more: str = ""

    @property
    def id(self) -> str:
        """The same for the same choice."""
        return blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()

    def has(self, at_ms: int, data: bytes) -> bool:
        return self.since_ms <= at_ms < self.until_ms and (not self.types or _type(data) in self.types)


class _Typed(Struct):
    type: str = ""


def _type(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=_Typed).type
    except msgspec.DecodeError:
        return ""


def bar(part: float) -> str:
    """How far something is, for people; ``part`` from 0 to 1."""
    return f"[{'#' * int(part * BAR_WIDTH):-<{BAR_WIDTH}}] {part:.0%}"


def replay_name(link: LinkName, chosen: Chosen) -> SourceName:
    """The source that a replay is leased as; no configured source can have this name."""
    return SourceName(f"replay.{chosen.id}.{link}")


class Lake:
    """The lake of one hub, as far as it was chosen from."""

    def __init__(self, reader: LakeReader, source: SourceName, regions: Collection[Region], chosen: Chosen) -> None:
        """``regions``: whose events may be there."""
        self._reader = reader
        self._source = source
        self._regions = regions
        self._chosen = chosen
        self._objects = 0
        self._opened = 0

    @property
    def part(self) -> float:
        """Of the objects that may hold what is chosen, so many are opened, from 0 to 1."""
        return self._opened / self._objects if self._objects else 0.0

    async def events(self) -> AsyncIterator[Archived]:
        """All that are chosen, each once, shard by shard in order. Raises StoreUnavailable."""
        runs = deque(await self._runs())
        self._objects, self._opened = len(runs), 0
        while runs:
            shard = (runs[0].incarnation, runs[0].shard)
            of_shard: deque[Run] = deque()
            while runs and (runs[0].incarnation, runs[0].shard) == shard:
                of_shard.append(runs.popleft())
            async for event in merged(self._reader, self._opening(of_shard)):
                if self._chosen.has(event.at_ms, event.data):
                    yield event

    async def _opening(self, runs: deque[Run]) -> AsyncIterator[Run]:
        while runs:
            self._opened += 1
            yield runs.popleft()

    async def _runs(self) -> Sequence[Run]:
        """Shards in the order they were made in (their names count up), so parents before children."""
        since_ms, until_ms = self._chosen.since_ms, self._chosen.until_ms
        found = []
        for region in self._regions:
            for prefix in day_prefixes(self._source, region, since_ms, until_ms):
                names = await self._reader.names(prefix)
                found += [run for name in names if (run := run_of(name)) and is_within(name, since_ms, until_ms)]
        return sorted(found)


async def merged(reader: LakeReader, runs: AsyncIterator[Run]) -> AsyncIterator[Archived]:
    """The events of one shard, each once; ``runs`` come by their first. Raises StoreUnavailable.

    Only objects that overlap are in memory at one time.
    """
    heads: list[tuple[int, int, int, Archived, Iterator[Archived]]] = []
    opened, last = 0, (-1, -1)
    following = await anext(runs, None)
    while following is not None or heads:
        while following is not None and (not heads or following.first <= heads[0][0]):
            opened += 1
            _push(heads, opened, iter(await reader.events(following.name)))
            following = await anext(runs, None)
        if not heads:
            return
        sequence, sub_sequence, number, event, rest = heapq.heappop(heads)
        _push(heads, number, rest)
        if (sequence, sub_sequence) != last:
            last = (sequence, sub_sequence)
            yield event


def _push(
    heads: list[tuple[int, int, int, Archived, Iterator[Archived]]], number: int, rest: Iterator[Archived]
) -> None:
    event = next(rest, None)
    if event is not None:
        heapq.heappush(heads, (event.sequence, event.sub_sequence, number, event, rest))


class ReplaySource:
    """Implements `ports.Source` and `ports.Queue`."""

    def __init__(self, lake: Lake, chosen: Chosen) -> None:
        self._lake = lake
        self._shard = Shard(ShardId(f"replay-{chosen.id}"))
        self._events: AsyncIterator[Archived] | None = None
        self._number = 0
        self.done_number = 0
        """So many are done."""
        self.earlier_number = 0
        """So many of these were done by another run of the same replay, which this one went on from."""
        self.is_over = False

    @property
    def progress(self) -> str:
        """In words, behind what the service is doing."""
        return f", {self.done_number:,} events done {bar(self._lake.part)} of the objects"

    async def describe(self) -> SourceInfo:
        return SourceInfo(INCARNATION, 0)

    async def shards(self) -> Sequence[Shard]:
        return (self._shard,)

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        self._events = None
        if isinstance(position, After):
            self.earlier_number += max(0, position.sequence - self.done_number)
            self.done_number = position.sequence
        return Cursor(shard, position, "events")

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        """The shard ends behind the last event."""
        if isinstance(cursor.position, ShardEnd):
            return Page((), None, 0)
        behind = cursor.position.sequence if isinstance(cursor.position, After) else 0
        records: list[Record] = []
        try:
            events = await self._behind(behind)
            async for event in events:
                self._number += 1
                records.append(_record(event, self._number))
                if len(records) == records_max:
                    return Page(tuple(records), Cursor(cursor.shard, After(records[-1].sequence), "events"), 1)
        except StoreUnavailable:
            self._events = None
            raise
        self._events = None
        return Page(tuple(records), None, 0)

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        """Hours that are past stay as they are."""
        del shard, position
        return True

    async def _behind(self, number: int) -> AsyncIterator[Archived]:
        """What follows the event of this number."""
        if self._events is None or self._number != number:
            self._events, self._number = self._lake.events(), 0
            while self._number < number and await anext(self._events, None) is not None:
                self._number += 1
        return self._events

    def done(self, position: Position) -> None:
        """As `ports.Queue.done`."""
        if isinstance(position, After):
            self.done_number = position.sequence
        elif isinstance(position, ShardEnd):
            self.done_number = self._number
            self.is_over = True

    def troubles(self) -> QueueTroubles:
        """It has none."""
        return QueueTroubles()

    async def run(self, _: Callable[[], bool]) -> None:
        """Nothing is to be deleted."""
        await asyncio.Event().wait()


def _record(event: Archived, number: int) -> Record:
    return Record(event.data, event.partition_key, str(number), event.at_ms, 0, event.origin)
