"""What one link takes in next of a shard, in runs that fit a span and the memory that there is for it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from replicator.core.model import Position, ShardEnd
from replicator.errors import PositionLost, TransientError
from replicator.ports import Cursor
from replicator.worker.link import Link
from replicator.worker.lost_position import Losses
from replicator.worker.room import Room
from replicator.worker.shard_log import ShardLog
from replicator.worker.waiting import unless
from replicator.worker.window import Batch

logger = structlog.get_logger(__name__)

RETRY_S = 0.5


class Intake:
    """``position`` is behind what was taken in; whoever gets a run moves it when that has become a span."""

    def __init__(
        self,
        link: Link,
        log: ShardLog,
        losses: Losses,
        room: Room,
        until_room: Callable[[], Awaitable[None]],
        stop: asyncio.Future[None],
    ) -> None:
        """``until_room`` returns when `Room` is to be asked again. When ``stop`` is done, nothing is waited for."""
        self._link = link.name
        self._settings = link.settings
        self._log = log
        self._losses = losses
        self._room = room
        self._stop = stop
        self._until_room = until_room
        self._cursor: Cursor | None = None
        self._rest: Batch | None = None
        """Of a page that was read for this link alone, what is not taken in yet."""
        self.position: Position
        self.held_bytes = 0
        """Of the rest."""
        self.is_at_tip = False
        self.arrival_ms: int | None = None
        """Of the last record that was taken in; None before the first."""

    def begin(self, position: Position) -> None:
        self.position = position
        self._log.window.readers.append(self._follows)

    def end(self) -> None:
        self._room.leave()
        if self._follows in self._log.window.readers:
            self._log.window.readers.remove(self._follows)

    def _follows(self) -> Position:
        """Behind what is in hand: a link that has read by itself up to the window's end goes on with the window."""
        return self.position if self._rest is None else self._rest.after

    async def next_run(self) -> tuple[Batch, int] | None:
        """What follows, as far as it is one span, and the bytes that are accounted for it; None: ask again.

        The rest of a page of the window stays there, to be found again or, should it be gone by then, read again: pages
        that links keep on their own account would be in nobody's budget. The rest of a page that was read for this link
        alone is kept, and accounted for.
        """
        page = self._rest or self._log.at_hand(self.position) or await self._read()
        if page is None:
            return None
        if page.is_own:
            return self._own_run(page)
        self._cursor = None
        sizes = page.run_sizes(self._settings.span_records_max)
        room = self._room.take(min(sum(sizes), self._room.run_bytes_max))
        if room is None:
            del page
            await self._until_room()
            return None
        return page.cut(sizes, room)[0], room

    def _own_run(self, page: Batch) -> tuple[Batch, int]:
        sizes = page.run_sizes(self._settings.span_records_max)
        run, self._rest = page.cut(sizes, self._room.run_bytes_max)
        size = _size(run)
        self.held_bytes -= size
        return run, size

    def took(self, run: Batch) -> None:
        """The run is a span now."""
        self.position = run.after
        self.is_at_tip = run.is_tip
        if run.records:
            self.arrival_ms = run.records[-1].record.arrival_ms
        self._log.taken(self._follows())

    async def _read(self) -> Batch | None:
        room: int | None = 0
        if self._log.reads_alone(self.position):
            room = self._room.take(min(self._room.left_bytes, self._log.page_bytes()))
        else:
            self._room.leave()
        if room is None:
            await self._until_room()
            return None
        try:
            page = await unless(self._stop, self._next(room or self._room.own_left_bytes))
        finally:
            self._room.add(-room)
        if page is not None and page.is_own:
            self._rest, self.held_bytes = page, _size(page)
            self._room.add(self.held_bytes)
        return page

    async def _next(self, room_bytes: int) -> Batch | None:
        try:
            batch, self._cursor = await self._log.next(
                self.position, self._cursor, room_bytes=room_bytes, is_at_tip=self.is_at_tip
            )
        except PositionLost as exc:
            self._cursor, self.is_at_tip = None, False
            place = await self._losses.restart(exc, self.position)
            if place == ShardEnd():
                return Batch((), place, is_tip=True)
            self.position = place
            return None
        except TransientError as exc:
            logger.warning("shard.read_failed", link=self._link, shard=self._log.shard, error=str(exc))
            await asyncio.sleep(exc.retry_after_s or RETRY_S)
            return None
        return batch


def _size(batch: Batch) -> int:
    return sum(batch.sizes)
