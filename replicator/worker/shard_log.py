"""One shard's records, read once for all links that keep up.

How it works: a live reader appends pages to a bounded window at the tip of what was read. A link asks for what follows
its position. When the window covers that position, the link gets the records from memory; when it was evicted, the
link is detached and reads the source by itself, from its own position, until the window covers it again.

Why it is safe: every link owns its position, and a segment says exactly which position it follows. A link is served
from a segment only from the record behind its own position on, so joining, detaching and rejoining can neither skip a
record nor hand one out twice. Nobody waits for a slow link: what it has not read is evicted and read again later.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from replicator.core.budget import ReadBudget
from replicator.core.memory import records_within, run_end
from replicator.core.model import After, Position, SequenceNumber, ShardEnd, ShardId
from replicator.errors import PositionLost, TransientError
from replicator.ports import Cursor, Page, Source, Telemetry
from replicator.worker.prepare import Prepared
from replicator.worker.span import whole_end


class LogSettings(Struct, frozen=True):
    """``window_bytes`` bounds what a shard keeps in memory, beside its share of the worker's; one page always stays."""

    window_bytes: int
    records_per_read: int = 1000
    reads_per_s: float = 4.0
    idle_read_s: float = 0.25
    retry_s: float = 0.5


NEVER_S, ALWAYS_S = float("-inf"), float("inf")
LOOKS_S = 12 * 3600.0
"""Half the shortest retention there is: what came between two reads that are closer would still be there."""


class Segment(Struct):
    """A page of records between two positions of the shard. ``quiet_s`` and ``read_s``: see `Batch`."""

    before: Position
    records: tuple[Prepared, ...]
    after: Position
    size_bytes: int
    quiet_s: float = NEVER_S
    read_s: float = ALWAYS_S


class Batch(Struct, frozen=True):
    """What a link gets: the records behind its position.

    ``is_tip``: when they were read, nothing stored in the shard followed them. ``quiet_s`` is the loop time of the last
    look before that found nothing behind the position, as far as it was seen; `ALWAYS_S` when what is before and behind
    the position was read together, so that nothing was between. ``read_s``: when they were read, `ALWAYS_S` for now.
    """

    records: Sequence[Prepared]
    after: Position
    is_tip: bool
    quiet_s: float = NEVER_S
    read_s: float = ALWAYS_S

    def cut(self, records_max: int, bytes_max: int) -> tuple["Batch", "Batch | None"]:
        """The first run of whole records that fits a span, and the rest."""
        sizes = [len(prepared.record.data) for prepared in self.records[:records_max]]
        stop = whole_end(self.records, 0, run_end(sizes, 0, records_max, bytes_max))
        if stop >= len(self.records):
            return self, None
        place = After(self.records[stop - 1].record.sequence)
        run = Batch(self.records[:stop], place, is_tip=False, quiet_s=self.quiet_s, read_s=self.read_s)
        return run, Batch(self.records[stop:], self.after, self.is_tip, ALWAYS_S)


class ShardLog:
    """The shared window of one shard, and the place where its read budget is spent."""

    def __init__(
        self,
        source: Source,
        shard: ShardId,
        settings: LogSettings,
        prepare: Callable[[Page], tuple[Prepared, ...]],
        telemetry: Telemetry,
        labels: dict[str, str],
        share_bytes: Callable[[], int],
    ) -> None:
        """``share_bytes`` tells what the window may hold now, see `core.memory`."""
        self._source = source
        self._shard = shard
        self._settings = settings
        self._prepare = prepare
        self._telemetry = telemetry
        self._labels = labels
        self._share_bytes = share_bytes
        self._seen = (0, 0)
        """Bytes and records of the last page that had any."""
        self._budget = ReadBudget(settings.reads_per_s, 0.0)
        self._catching_up = asyncio.Lock()
        """One detached link after the other books a read."""
        self._segments: deque[Segment] = deque()
        self._tail: Position | None = None
        self._cursor: Cursor | None = None
        self._has_ended = False
        self._tip: Position | None = None
        """Where a read last found nothing behind."""
        self._quiet_s = NEVER_S
        """When a read last found nothing behind the tail, and no record can have come and gone unseen before it."""
        self._live_s = NEVER_S
        """When the live reader last read."""
        self._is_seamless = True
        """Since the tail stands where it is, no two reads were `LOOKS_S` apart."""
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._lost: tuple[Position, PositionLost] | None = None
        self.behind_ms: int | None = None
        self.read_ok_s: float | None = None
        """Loop time of the last read that succeeded."""
        self.window_bytes = 0

    async def run(self) -> None:
        """The live reader: fills the window while some link wants more than it holds."""
        while not self._has_ended:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._read_live()
            except TransientError as exc:
                self._telemetry.count("read_errors_total", 1, code=exc.code, **self._labels)
                await asyncio.sleep(exc.retry_after_s or self._settings.retry_s)
                self._wanted.set()
            except PositionLost as exc:
                if self._tail is not None:
                    self._lost = (self._tail, exc)
                self._tail = None
                self._notify()

    async def next(
        self, position: Position, cursor: Cursor | None, *, room_bytes: int | None = None, is_at_tip: bool = True
    ) -> tuple[Batch, Cursor | None]:
        """What follows ``position``, some records, or none yet for a detached link, or the end; waits at the tip.

        ``cursor`` is what the last call answered (a detached link's own place in the source), ``room_bytes`` what a
        page that is read for this link alone may hold (the window's share by default). A link that does not know yet
        that it ``is_at_tip`` is told so by a batch without records. Raises PositionLost, TransientError (only when
        detached).
        """
        while position != ShardEnd():
            if self._lost is not None and self._lost[0] == position:
                lost, self._lost = self._lost[1], None
                raise lost
            if self._tail is None or self._is_ahead(position):
                self._start_at(position)
            if (found := self.at_hand(position)) is not None:
                return found, None
            if position != self._tail:
                return await self._read_detached(position, cursor, room_bytes)
            if position == self._tip and not is_at_tip:
                return Batch((), position, is_tip=True), None
            self._wanted.set()
            await self._changed.wait()
        return Batch((), position, is_tip=True), None

    def at_hand(self, position: Position) -> Batch | None:
        """What the window has of what follows ``position``; whoever takes it is a link that keeps up."""
        found = self._find(position)
        if found is not None and found.after == self._tail:
            self._wanted.set()
        return found

    def is_attached(self, position: Position) -> bool:
        """Whether the window, or its growing end, covers what follows ``position``."""
        return position == self._tail or self._find(position) is not None

    def _is_ahead(self, position: Position) -> bool:
        match position, self._tail:
            case After(sequence=mine), After(sequence=tail):
                return mine > tail
            case After(), tail_position:
                return tail_position != ShardEnd()
        return False

    def _start_at(self, position: Position) -> None:
        """The fastest link decides where the live reader stands; those behind it read by themselves."""
        self._segments.clear()
        self.window_bytes = 0
        self._tail = position
        self._tip = None
        self._quiet_s = NEVER_S
        self._live_s, self._is_seamless = _now_s(), True
        self._cursor = None
        self._has_ended = False
        self._notify()

    def _notify(self) -> None:
        """Wake every link that waits at the tip; each looks at the window anew."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _find(self, position: Position) -> Batch | None:
        for segment in self._segments:
            if segment.before == position:
                return self._batch(segment, segment.records, segment.quiet_s)
            if isinstance(position, After) and _covers(segment, position.sequence):
                first = bisect_right(segment.records, position.sequence, key=_sequence)
                return self._batch(segment, segment.records[first:], ALWAYS_S if first else segment.quiet_s)
        return None

    def _batch(self, segment: Segment, records: Sequence[Prepared], quiet_s: float) -> Batch:
        is_newest = segment.after == self._tail
        is_tip = is_newest and self.behind_ms == 0
        return Batch(records, segment.after, is_tip, quiet_s, segment.read_s)

    async def _read_live(self) -> None:
        tail = self._tail
        if tail is None or self._has_ended:
            return
        await asyncio.sleep(self._budget.reserve_live(_now_s()))
        cursor = self._cursor or await self._source.open(self._shard, tail)
        page = await self._source.read(cursor, self._records_max())
        if self._tail != tail:
            self._wanted.set()
            return
        self._is_seamless &= _now_s() - self._live_s < LOOKS_S
        self._live_s = _now_s()
        self._note(page, "live")
        self._cursor = page.next
        if page.records or page.next is None:
            self._append(tail, page)
        else:
            if page.behind_ms == 0:
                self._quiet_s = _now_s() if self._is_seamless else self._quiet_s
                if self._tip != tail:
                    self._tip = tail
                    self._notify()
                await asyncio.sleep(self._settings.idle_read_s)
            self._wanted.set()

    def _append(self, tail: Position, page: Page) -> None:
        segment = self._segment(tail, page)
        segment.quiet_s, self._quiet_s = self._quiet_s, _now_s() if page.behind_ms == 0 else NEVER_S
        segment.read_s, self._is_seamless = _now_s(), True
        self._segments.append(segment)
        self.window_bytes += segment.size_bytes
        while self.window_bytes > self._window_max() and len(self._segments) > 1:
            self.window_bytes -= self._segments.popleft().size_bytes
        self._tail = segment.after
        self._has_ended = segment.after == ShardEnd()
        self._notify()

    def _window_max(self) -> int:
        return min(self._settings.window_bytes, self._share_bytes())

    def _records_max(self, room_bytes: int | None = None) -> int:
        share = self._window_max()
        room = share if room_bytes is None else min(share, room_bytes)
        return records_within(room, *self._seen, self._settings.records_per_read)

    def _segment(self, before: Position, page: Page) -> Segment:
        after: Position = After(page.records[-1].sequence) if page.records else before
        if page.next is None:
            after = ShardEnd()
        size = sum([len(record.data) for record in page.records])
        if page.records:
            self._seen = size, page.stored or len(page.records)
        return Segment(before, self._prepare(page), after, size)

    async def _read_detached(
        self, position: Position, cursor: Cursor | None, room_bytes: int | None
    ) -> tuple[Batch, Cursor | None]:
        await self._take_turn()
        # A cursor that stands elsewhere (the page was cut, the link moved) would skip records.
        place = cursor if cursor is not None and cursor.position == position else None
        place = place or await self._source.open(self._shard, position)
        page = await self._source.read(place, self._records_max(room_bytes))
        self._note(page, "detached")
        kept = self._up_to_tail(page)
        segment = self._segment(position, kept)
        if not kept.records and kept.next is not None and kept.behind_ms == 0:
            await asyncio.sleep(self._settings.idle_read_s)
        return Batch(segment.records, segment.after, is_tip=kept is page and page.behind_ms == 0), page.next

    async def is_kept(self, position: After) -> bool:
        """As `ports.Source.is_kept`, within the budget of those who read by themselves."""
        await self._take_turn()
        return await self._source.is_kept(self._shard, position)

    def _up_to_tail(self, page: Page) -> Page:
        """The page cut where the live reader stands, so that the link rejoins exactly there."""
        tail = self._tail
        if not isinstance(tail, After) or not page.records or page.records[-1].sequence <= tail.sequence:
            return page
        kept = tuple(record for record in page.records if record.sequence <= tail.sequence)
        if not kept or page.next is None:
            return page
        stored = len({record.sequence for record in kept}) if page.stored else 0
        return Page(kept, page.next, page.behind_ms, stored)

    async def _take_turn(self) -> None:
        async with self._catching_up:
            await asyncio.sleep(self._budget.turn_s(_now_s()))
            await asyncio.sleep(self._budget.reserve_behind(_now_s()))

    def _note(self, page: Page, kind: str) -> None:
        self.behind_ms = page.behind_ms
        self.read_ok_s = _now_s()
        self._telemetry.count("read_calls_total", 1, kind=kind, **self._labels)
        self._telemetry.count("records_read_total", len(page.records), **self._labels)


def _sequence(prepared: Prepared) -> SequenceNumber:
    return prepared.record.sequence


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _covers(segment: Segment, sequence: SequenceNumber) -> bool:
    """Whether the records behind ``sequence`` begin inside this segment."""
    if isinstance(segment.before, After) and sequence < segment.before.sequence:
        return False
    if not segment.records:
        return isinstance(segment.before, After)
    if not isinstance(segment.before, After) and sequence < segment.records[0].record.sequence:
        return False
    return sequence < segment.records[-1].record.sequence or (
        segment.after == ShardEnd() and sequence == segment.records[-1].record.sequence
    )
