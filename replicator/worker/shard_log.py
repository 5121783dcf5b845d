"""One shard's records, read once for all links that keep up.

How it works: a live reader appends pages to a bounded window at the tip of what was read. A link asks for what follows
its position. When the window covers that position, the link gets the records from memory; when it was evicted, the
link is detached and reads the source by itself, from its own position, until the window covers it again.

Why it is safe: every link owns its position, and a segment says exactly which position it follows. A link is served
from a segment only from the record behind its own position on, so joining, detaching and rejoining can neither skip a
record nor hand one out twice. Nobody waits for a slow link: what it has not read is evicted and read again later.
"""

import asyncio
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from replicator.core.budget import ReadBudget
from replicator.core.lending import Account
from replicator.core.memory import FIRST_RECORD_BYTES, records_within
from replicator.core.model import After, Position, ShardEnd, ShardId
from replicator.errors import PositionLost, TransientError
from replicator.ports import Cursor, Page, Source, Telemetry
from replicator.worker.prepare import Prepared
from replicator.worker.window import ALWAYS_S, LONG_AGO_S, Batch, Segment, Window


class LogSettings(Struct, frozen=True):
    """``window_bytes`` bounds what a shard keeps in memory, beside its share of the worker's; one page always stays."""

    window_bytes: int
    records_per_read: int = 1000
    reads_per_s: float = 4.0
    idle_read_s: float = 0.25
    retry_s: float = 0.5


LOOKS_S = 12 * 3600.0
"""Half the shortest retention there is: what came between two reads that are closer would still be there."""
TERM_S, PASSED_TERM_S = 4.0, 1.0
"""How long a page that needs a loan is surely kept: from its reading on, and from when the first link has passed it."""
PAGES_MIN = 8
"""All loans together are enough for so many full pages."""


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
        account: Account,
        phase: float = 0.0,
    ) -> None:
        """``account`` is what the window may hold; see `core.lending`. ``phase``: see `core.budget`."""
        self._source = source
        self.shard = shard
        self._settings = settings
        self._prepare = prepare
        self._telemetry = telemetry
        self._labels = labels
        self._account = account
        self._turn = asyncio.Event()
        account.wake = self._turn.set
        self._seen = (0, 0)
        """Bytes and records of the last page that had any."""
        self._budget = ReadBudget(settings.reads_per_s, 0.0, phase)
        self._catching_up = asyncio.Lock()
        """One detached link after the other books a read."""
        self.window = Window(account)
        self._tail: Position | None = None
        self._cursor: Cursor | None = None
        self._has_ended = False
        self._tip: Position | None = None
        """Where a read last found nothing behind."""
        self._quiet_s = LONG_AGO_S
        """When a read last found nothing behind the tail, and no record can have come and gone unseen before it."""
        self._live_s = LONG_AGO_S
        """When the live reader last read."""
        self._is_seamless = True
        """Since the tail stands where it is, no two reads were `LOOKS_S` apart."""
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._lost: tuple[Position, PositionLost] | None = None
        self.behind_ms: int | None = None
        self.read_ok_s: float | None = None
        """Loop time of the last read that succeeded."""

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
        page that is read for this link alone may hold (as one of the window by default). A link that does not know yet
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
        """What the window has of what follows ``position``."""
        return self._find(position)

    def taken(self, position: Position) -> None:
        """A link has taken in everything up to there: pages that none takes any more may go, what follows is wanted."""
        if position == self._tail:
            self._wanted.set()
            self._account.term_s = min(self._account.term_s, _now_s() + PASSED_TERM_S)
        self.window.drop_passed()

    def close(self) -> None:
        """Nobody takes anything any more."""
        self.window.clear()
        self._account.close()

    def reads_alone(self, position: Position) -> bool:
        """Whether a link that stands there has to read by itself."""
        return not (self._tail is None or self._is_ahead(position) or self.is_attached(position))

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
        self.window.clear()
        self._tail = position
        self._tip = None
        self._quiet_s = LONG_AGO_S
        self._live_s, self._is_seamless = _now_s(), True
        self._cursor = None
        self._has_ended = False
        self._notify()

    def _notify(self) -> None:
        """Wake every link that waits at the tip; each looks at the window anew."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _find(self, position: Position) -> Batch | None:
        found = self.window.find(position)
        if found is None:
            return None
        page, first = found
        return self._batch(page, first)

    def _batch(self, page: Segment, first: int) -> Batch:
        is_tip = page.after == self._tail and self.behind_ms == 0
        records, sizes = (page.records[first:], page.sizes[first:]) if first else (page.records, page.sizes)
        quiet_s = ALWAYS_S if first else page.quiet_s
        return Batch(records, page.after, is_tip, quiet_s, page.read_s, is_from_lake=page.is_from_lake, sizes=sizes)

    async def _read_live(self) -> None:
        tail = self._tail
        if tail is None or self._has_ended:
            return
        await asyncio.sleep(self._budget.free_in_s(_now_s()))
        room = await self._room_for_page()
        try:
            await asyncio.sleep(self._budget.reserve_live(_now_s()))
            cursor = self._cursor or await self._source.open(self.shard, tail)
            page = await self._source.read(cursor, self._records_within(room))
        finally:
            self._account.add(-room)
        if self._tail != tail:
            self._wanted.set()
            return
        self._is_seamless &= _now_s() - self._live_s < LOOKS_S
        self._live_s = _now_s()
        self._note(page, "live")
        self._cursor = page.next
        if page.records or page.next is None:
            self._append(tail, page, room)
        else:
            if page.behind_ms == 0:
                self._quiet_s = _now_s() if self._is_seamless else self._quiet_s
                if self._tip != tail:
                    self._tip = tail
                    self._notify()
                await asyncio.sleep(self._settings.idle_read_s)
            self._wanted.set()

    def _append(self, tail: Position, page: Page, room: int) -> None:
        segment = self._segment(tail, page)
        segment.quiet_s, self._quiet_s = self._quiet_s, _now_s() if page.behind_ms == 0 else LONG_AGO_S
        segment.read_s, self._is_seamless = _now_s(), True
        self.window.append(segment, min(self._settings.window_bytes, max(self._account.pool.share_bytes, 2 * room)))
        self._account.term_s = _now_s() + TERM_S
        self._tail = segment.after
        self._has_ended = segment.after == ShardEnd()
        self._notify()

    async def _room_for_page(self) -> int:
        """What the next page may hold: full ones for all who are behind, one after the other if need be.

        At the tip little is to be expected, and nothing is waited for.
        """
        account = self._account
        while not account.take(wanted := self.page_bytes()):
            if self.behind_ms == 0 and account.own_left_bytes >= account.pool.own_bytes // 2:
                return account.take_own()
            await self._until_turn()
        return wanted

    async def _until_turn(self) -> None:
        """Until others gave something back, if need be because their loans are called back."""
        self._turn.clear()
        until_s = self._account.pool.call_back(_now_s())
        try:
            async with asyncio.timeout_at(until_s):
                await self._turn.wait()
        except TimeoutError:
            return

    def page_bytes(self) -> int:
        """What a page should hold."""
        size, records = self._seen
        full = self._settings.records_per_read * (size / records if records else FIRST_RECORD_BYTES)
        pool = self._account.pool
        most = max(pool.own_bytes, pool.lendable_bytes // PAGES_MIN)
        return max(1, min(int(full), most, self._settings.window_bytes))

    def _records_within(self, room: int) -> int:
        return records_within(room, *self._seen, self._settings.records_per_read)

    def _segment(self, before: Position, page: Page) -> Segment:
        after: Position = After(page.records[-1].sequence) if page.records else before
        if page.next is None:
            after = ShardEnd()
        sizes = [len(record.data) for record in page.records]
        size = sum(sizes)
        if page.records:
            self._seen = size, page.stored or len(page.records)
        return Segment(before, self._prepare(page), sizes, after, size, is_from_lake=page.is_from_lake)

    async def _read_detached(
        self, position: Position, cursor: Cursor | None, room_bytes: int | None
    ) -> tuple[Batch, Cursor | None]:
        await self._take_turn()
        # A cursor that stands elsewhere (the page was cut, the link moved) would skip records.
        place = cursor if cursor is not None and cursor.position == position else None
        place = place or await self._source.open(self.shard, position)
        room = self.page_bytes() if room_bytes is None else room_bytes
        page = await self._source.read(place, self._records_within(room))
        self._note(page, "detached")
        kept = self._up_to_tail(page)
        segment = self._segment(position, kept)
        if not kept.records and kept.next is not None and kept.behind_ms == 0:
            await asyncio.sleep(self._settings.idle_read_s)
        is_tip = kept is page and page.behind_ms == 0
        batch = Batch(
            segment.records,
            segment.after,
            is_tip,
            is_own=True,
            is_from_lake=page.is_from_lake,
            sizes=segment.sizes,
        )
        return batch, page.next

    async def is_kept(self, position: After) -> bool:
        """As `ports.Source.is_kept`, within the budget of those who read by themselves."""
        await self._take_turn()
        return await self._source.is_kept(self.shard, position)

    def _up_to_tail(self, page: Page) -> Page:
        """The page cut where the live reader stands, so that the link rejoins exactly there."""
        tail = self._tail
        if not isinstance(tail, After) or not page.records or page.records[-1].sequence <= tail.sequence:
            return page
        kept = tuple(record for record in page.records if record.sequence <= tail.sequence)
        if not kept or page.next is None:
            return page
        stored = len({record.sequence for record in kept}) if page.stored else 0
        return replace(page, records=kept, stored=stored)

    async def _take_turn(self) -> None:
        async with self._catching_up:
            await asyncio.sleep(self._budget.turn_s(_now_s()))
            await asyncio.sleep(self._budget.reserve_behind(_now_s()))

    def _note(self, page: Page, kind: str) -> None:
        self.behind_ms = page.behind_ms
        self.read_ok_s = _now_s()
        self._telemetry.count("read_calls_total", 1, kind=kind, **self._labels)
        self._telemetry.count("records_read_total", len(page.records), **self._labels)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
