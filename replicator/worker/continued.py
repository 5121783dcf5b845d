"""A shard whose trimmed records come from the event lake: the stream as long as it has them, else the lake.

How it works: a link into the lake archives the hub in order, so its watermark says up to where the lake is whole.
Whoever stands where the stream may have trimmed something has the source asked whether the record at the position is
still kept; if not, what follows comes from the lake, with the positions that the records have in the stream. Behind the
lake's watermark the stream goes on. Whoever dies on the way finds its checkpoint in the lake or in the stream again.

Why nothing is passed over: what is asked about was read before, so what is kept then was kept when it was read. A lake
that was added later is not turned to while the stream surely has all that is in it, nor taken for whole. The watermark
is taken before objects are listed, and nothing beyond it is given: what a dead owner stored there may have gaps.
Back in the stream the record at the watermark must be kept. If it is not, the lake has a hole: it is remembered, and
`has_hole` tells it every link that comes there. Positions have one meaning on both sides, so nothing comes twice.

What could not be decoded is not in the lake but in the quarantine of the lake's own link, with its bytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from replicator.core.lake import DAY_MS, HOUR_MS, Archived
from replicator.core.model import (
    After,
    AtTimestamp,
    Checkpoint,
    Position,
    Record,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    TrimHorizon,
)
from replicator.errors import PositionLost
from replicator.ports import Clock, Cursor, Page, Source, SourceInfo
from replicator.worker.lake_shard import ShardInLake
from replicator.worker.retention import Retention

READINGS_MAX = 8
"""Of one source in a worker, in memory at one time: each holds the objects that overlap where it stands."""
OLDEST_MS = 366 * DAY_MS
"""No record of a stream is older."""
HOLES_MAX = 1000
"""Of one shard, since it was leased; the oldest are forgotten."""


class InStream(Cursor, frozen=True):
    """Nothing behind the position arrived before ``since_ms``; None: not known."""

    since_ms: int | None = None


class InLake(Cursor, frozen=True):
    """``hour``: where to look for what follows; None: not known."""

    hour: int | None = None


class Reading(Struct, eq=False):
    """``through``: what the lake had for certain when its objects were listed. ``ahead`` was read and not given yet."""

    through: Position
    events: AsyncIterator[Archived]
    ahead: Archived | None = None

    async def take(self, records_max: int, stops: Sequence[Position]) -> list[Archived]:
        """Whole records: all events of the last one too. None of them is behind one of ``stops`` and before another."""
        taken: list[Archived] = []
        event = self.ahead or await anext(self.events, None)
        while event is not None:
            is_new = len(taken) > 0 and event.sequence != taken[-1].sequence
            if is_new and (len(taken) >= records_max or After(taken[-1].sequence) in stops):
                break
            taken.append(event)
            event = await anext(self.events, None)
        self.ahead = event
        return taken


class Readings:
    """Where readers of one source stand in the lake. One that was dropped is opened anew."""

    def __init__(self, readings_max: int = READINGS_MAX) -> None:
        self._open: dict[tuple[ShardId, Position], Reading] = {}
        self._readings_max = readings_max
        self.turns = asyncio.Semaphore(readings_max)
        """So many read at one time, beside as many that wait."""

    def pop(self, shard: ShardId, position: Position) -> Reading | None:
        return self._open.pop((shard, position), None)

    def keep(self, shard: ShardId, position: Position, reading: Reading) -> None:
        """The one that was used last; the one whose use is longest ago may go."""
        self._open[shard, position] = reading
        while len(self._open) > self._readings_max:
            del self._open[next(iter(self._open))]


class ContinuedSource:
    """Implements `ports.Source` for one leased shard."""

    def __init__(
        self,
        source: Source,
        lake: ShardInLake,
        readings: Readings,
        *,
        archived: Callable[[], Position | None],
        archived_from: Callable[[], Awaitable[int | None]],
        retention: Retention,
        clock: Clock,
    ) -> None:
        """``archived`` tells the watermark of the link into the lake, None while it has none.

        ``archived_from``: what arrived in the shard since this time was for the lake; None where that is not known.
        """
        self._source = source
        self._lake = lake
        self._readings = readings
        self._archived = archived
        self._archived_from = archived_from
        self._retention = retention
        self._clock = clock
        self._begun_ms = None if self.gives(TrimHorizon()) else clock.now_ms()
        """Where nothing of the shard was archived yet, nobody is late."""
        self._holes: deque[Position] = deque(maxlen=HOLES_MAX)
        self._seen = (0, 0, 0)
        """First and last number of the last page of the stream, and when its first record arrived."""

    async def describe(self) -> SourceInfo:
        return await self._source.describe()

    async def shards(self) -> Sequence[Shard]:
        return await self._source.shards()

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        return await self._source.is_kept(shard, position)

    def gives(self, position: Position) -> bool:
        """Whether the lake has something behind the position, and what is from there on as far as it is whole."""
        if position == ShardEnd():
            return False
        archived = self._archived()
        if isinstance(archived, After):
            return not isinstance(position, After) or archived.sequence > position.sequence
        return archived == ShardEnd()

    def tells(self, position: Position) -> bool:
        """Whether who reads on there is told by `has_hole` of what is missing."""
        return self._begun_ms is None and self.gives(position)

    def has_hole(self, position: Position) -> bool:
        """Whether it was found that what followed the position may be neither in the stream nor in the lake."""
        return position in self._holes

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        try:
            cursor = await self._source.open(shard, position)
        except PositionLost as lost:
            if await self._is_in_lake(shard, position, lost):
                return InLake(shard, position, "")
            raise
        return InStream(shard, position, cursor.token, self._since_ms(position))

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        """As `ports.Source.read`; a page without records may lead from the stream into the lake."""
        if isinstance(cursor, InLake):
            return await self._read_lake(cursor, records_max)
        assert isinstance(cursor, InStream), "a cursor of this source"
        try:
            return await self._read_stream(cursor, records_max)
        except PositionLost as lost:
            if await self._is_in_lake(cursor.shard, cursor.position, lost):
                return _into_lake(InLake(cursor.shard, cursor.position, ""))
            raise

    async def _is_in_lake(self, shard: ShardId, position: Position, lost: PositionLost) -> bool:
        """A number that the shard never had is not: only what was trimmed, with the shard or from it."""
        if not self.gives(position):
            return False
        return lost.is_trimmed or all(listed.id != shard for listed in await self._source.shards())

    # --- the stream ------------------------------------------------------------------------------------------------

    async def _read_stream(self, cursor: InStream, records_max: int) -> Page:
        begun_ms = self._clock.now_ms()
        page = await self._source.read(cursor, records_max)
        if await self._may_lack(cursor):
            if self.gives(cursor.position) and await self._has_more(page):
                return _into_lake(InLake(cursor.shard, cursor.position, ""))
            self.add_hole(cursor.position)
        return self._passed_on(page, cursor.since_ms, begun_ms)

    async def _may_lack(self, cursor: InStream) -> bool:
        """Whether something behind the position may have been trimmed, asked after the page was read."""
        if cursor.since_ms is not None and not self._is_old(cursor.since_ms):
            return False
        match cursor.position:
            case After() as position:
                return not await self._source.is_kept(cursor.shard, position)
            case AtTimestamp() as position:
                return self.gives(position)
        return False

    async def _has_more(self, page: Page) -> bool:
        """Whether the lake may have what the stream has trimmed. One that began behind what that keeps has less."""
        from_ms = await self._archived_from()
        if from_ms is None:
            return True
        return self._is_old(from_ms) and not any(record.arrival_ms < from_ms for record in page.records[:1])

    def _passed_on(self, page: Page, since_ms: int | None, begun_ms: int) -> Page:
        if page.records:
            first, last = page.records[0], page.records[-1]
            self._seen = (first.sequence, last.sequence, first.arrival_ms)
            since_ms = last.arrival_ms
        elif page.behind_ms == 0:
            since_ms = begun_ms
        if (following := page.next) is None:
            return page
        return replace(page, next=InStream(following.shard, following.position, following.token, since_ms))

    def _since_ms(self, position: Position) -> int | None:
        match position:
            case AtTimestamp(ms=ms):
                return max(ms, self._begun_ms or 0)
            case After(sequence=sequence):
                first, last, arrived_ms = self._seen
                return arrived_ms if first <= sequence <= last else None
        return None

    def _is_old(self, since_ms: int) -> bool:
        now_ms = self._clock.now_ms()
        return self._retention.is_old(now_ms - since_ms, now_ms)

    def add_hole(self, position: Position) -> None:
        """Neither stream nor lake have what follows the position."""
        if position not in self._holes:
            self._holes.append(position)

    # --- the lake --------------------------------------------------------------------------------------------------

    async def _read_lake(self, cursor: InLake, records_max: int) -> Page:
        shard, position = cursor.shard, cursor.position
        async with self._readings.turns:
            reading = self._readings.pop(shard, position) or await self._reading(cursor)
            events = await reading.take(records_max, self._holes)
            place: Position = After(events[-1].sequence) if events else position
            self._readings.keep(shard, place, reading)
        if events:
            hour = events[-1].at_ms // HOUR_MS - 1
            behind_ms = max(1, self._clock.now_ms() - events[-1].at_ms)
            records = tuple([_record(event) for event in events])
            stored = len({event.sequence for event in events})
            return Page(records, InLake(shard, place, "", hour), behind_ms, stored, is_from_lake=True)
        if reading.through == ShardEnd():
            return Page((), None, 0, is_from_lake=True)
        return await self._back(cursor, reading.through, records_max)

    async def _reading(self, cursor: InLake) -> Reading:
        """Of what follows the cursor."""
        through, hour, position = self._archived(), cursor.hour, cursor.position
        assert through is not None, "nobody is sent to a lake that has nothing"
        if hour is None:
            beginning = await self._lake.beginning(position)
            hour = beginning.hour
            if not (beginning.is_whole or await self._is_whole(position)):
                self.add_hole(position)
        events = self._lake.events(hour, _number(position), _number(through))
        return Reading(through, _since(position.ms, events) if isinstance(position, AtTimestamp) else events)

    async def _is_whole(self, position: Position) -> bool:
        """Whether what a link is owed that has done nothing yet was all for the lake."""
        if isinstance(position, AtTimestamp):
            from_ms = await self._archived_from()
            return from_ms is not None and from_ms <= position.ms
        return isinstance(position, TrimHorizon)

    async def _back(self, cursor: InLake, through: Position, records_max: int) -> Page:
        """The stream behind the lake: its record at the watermark must be kept, or there is a hole."""
        shard, position = cursor.shard, cursor.position
        mark = _further(position, through)
        begun_ms = self._clock.now_ms()
        try:
            place = Cursor(shard, position, cursor.token) if cursor.token else await self._source.open(shard, position)
            page = await self._source.read(place, records_max)
            is_kept = await self._source.is_kept(shard, mark)
        except PositionLost:
            if self.gives(mark):
                return self._again(cursor)
            raise
        if not is_kept and self.gives(mark):
            return self._again(cursor)
        if not is_kept:
            self.add_hole(position)
        if not page.records and page.behind_ms and page.next is not None:
            # Kinesis gives empty pages on its way over what is gone: the next one follows, or it would never end.
            return replace(page, next=replace(cursor, token=page.next.token))
        return self._passed_on(page, None, begun_ms)

    def _again(self, cursor: InLake) -> Page:
        """The lake has more by now than when its objects were listed."""
        self._readings.pop(cursor.shard, cursor.position)
        return _into_lake(replace(cursor, token=""))


def owed(durable: Checkpoint, *, retention_ms: int, is_child: bool, now_ms: int) -> Checkpoint:
    """Where a link begins that has begun at the oldest record of the source, which is another one by now.

    What it had tried was kept then. ``is_child``: it has done a parent of the shard, so it is owed all of this one.
    """
    if not isinstance(durable.position, TrimHorizon):
        return durable
    if durable.attempt_floor_ms is not None:
        return replace(durable, position=AtTimestamp(max(0, durable.attempt_floor_ms - retention_ms)))
    return replace(durable, position=AtTimestamp(now_ms - OLDEST_MS)) if is_child else durable


def _into_lake(cursor: InLake) -> Page:
    return Page((), cursor, 1)


def _number(position: Position) -> SequenceNumber | None:
    return position.sequence if isinstance(position, After) else None


def _further(position: Position, mark: Position) -> After:
    assert isinstance(mark, After), "a lake that has something, and not all"
    return position if isinstance(position, After) and position.sequence > mark.sequence else mark


async def _since(ms: int, events: AsyncIterator[Archived]) -> AsyncIterator[Archived]:
    """From the first that arrived at this time, or later, on."""
    is_begun = False
    async for event in events:
        is_begun = is_begun or event.at_ms >= ms
        if is_begun:
            yield event


def _record(event: Archived) -> Record:
    """As the stream had it, or what was unpacked of it."""
    return Record(event.data, event.partition_key, str(event.sequence), event.at_ms, event.sub_sequence)
