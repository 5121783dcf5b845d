"""Where a worker has the lease rows from: the table itself, or, in a large fleet, what one of the workers posted of it.

A post that has not changed for most of a period is renewed by whoever finds it so first and gets the turn; turns are
numbers that only grow, so there is one winner each. Who died with the turn in hand is passed over after ``duration_s``,
and whoever hears nothing new for `SILENCE` times as long reads the table itself.

A worker that has acted plans again when a post shows what it did, or it would plan the same moves twice; at the latest
with the second post from then, because only the next one may have been in the making already.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct

from replicator.core.bulletin import Bulletin, decode, encode
from replicator.core.lease_reading import Pace, pace
from replicator.core.leasing import LeaseSettings, Observer, known_workers
from replicator.core.model import Lease, ShardId, SourceName
from replicator.errors import StoreUnavailable, TransientError
from replicator.ports import LeaseStore

logger = structlog.get_logger(__name__)
T = TypeVar("T")
ROWS_PER_S = 1000
"""How slowly a large table may be read before it counts as not answering."""
STALE = 0.75
"""Of a period: a post this old is renewed."""
SILENCE = 3
"""Of ``duration_s``: without any news for so long the table is read whatever it costs."""
TRIES_MAX = 64
"""Of one post; a turn is its number times this, and the try."""


class News(Struct, frozen=True):
    """Rows to plan on. ``is_own``: read by this worker from the table. ``begun_s``: before anything of it was read."""

    rows: Sequence[Lease]
    is_own: bool
    begun_s: float


class Listing:
    """One source's lease rows as this worker comes to know them."""

    def __init__(self, store: LeaseStore, source: SourceName, *, links: int, settings: LeaseSettings) -> None:
        self._store = store
        self._source = source
        self._links = links
        self._settings = settings
        self._number = 0
        self._since_s = 0.0
        self._own: dict[ShardId, tuple[Lease, int]] = {}
        self.observer = Observer()
        self.pace: Pace | None = None
        """None before `expect` was called; `read` may be called from then on."""
        self._rows = self._shards = self._workers = 0

    @property
    def is_shared(self) -> bool:
        return self.pace is not None and self.pace.is_shared

    @property
    def period_s(self) -> float:
        return self.pace.period_s if self.pace is not None else self._settings.renew_s

    @property
    def list_every(self) -> int:
        return self.pace.list_every if self.pace is not None else self._settings.list_every

    async def read(self) -> News | None:
        """The rows, or None where there is nothing new to plan on. Raises TransientError."""
        begun_s = _now_s()
        if not self.is_shared:
            self._since_s = begun_s  # only silence while listening counts
            return await self._from_table()
        posted = await in_time(self._store.bulletin(self._source), self._settings.answer_s)
        if posted is not None and posted.number != self._number:
            return await self._taken_in(posted, begun_s)
        return await self._in_turn(begun_s, is_missing=posted is None)

    def wrote(self, row: Lease) -> None:
        """Remember a row as we left it, until a post must have it so."""
        if self.is_shared:
            self._own[row.shard] = (row, self._number + 2)

    async def _taken_in(self, posted: Bulletin, begun_s: float) -> News | None:
        is_first = self._number == 0
        self._number, self._since_s = posted.number, begun_s
        rows = decode(self._source, posted.data)
        if rows is None:  # of a newer version: what it says is for others
            return await self._from_table()
        self._observe(rows)
        if not self.is_shared:
            return await self._from_table()
        # The first one may be of any age, and tells no more than how large the fleet was.
        return News(rows, is_own=False, begun_s=begun_s) if self._shows_own(rows) and not is_first else None

    def _shows_own(self, rows: Sequence[Lease]) -> bool:
        """Whether the post was made after all our moves, as far as can be told."""
        self._own = {shard: own for shard, own in self._own.items() if self._number < own[1]}
        own_rows = [row for row in rows if row.shard in self._own] if self._own else ()
        return all(_is_later(row, self._own[row.shard][0]) for row in own_rows)

    async def _in_turn(self, begun_s: float, *, is_missing: bool) -> News | None:
        stale_s = begun_s - self._since_s
        if not is_missing and stale_s < self.period_s * STALE:
            return None
        tries = min(int(stale_s / self._settings.duration_s), TRIES_MAX - 1)
        # Should the post be gone while the turns are not, numbers leap until they are above them again.
        number = self._number + (1 if tries < SILENCE else 1 << tries)
        turn = number * TRIES_MAX + tries
        if await in_time(self._store.take_turn(self._source, turn), self._settings.answer_s):
            news = await self._from_table()
            await self._post(number, news.rows)
            return news
        if stale_s > self._settings.duration_s * SILENCE:
            return await self._from_table()
        return None

    async def _from_table(self) -> News:
        begun_s = _now_s()
        answer_s = self._settings.answer_s + self._rows / ROWS_PER_S
        rows = await in_time(self._store.rows(self._source), answer_s)
        self._observe(rows)
        return News(rows, is_own=True, begun_s=begun_s)

    async def _post(self, number: int, rows: Sequence[Lease]) -> None:
        """What was read counts for ourselves, even if nobody else hears of it."""
        data = encode(rows)
        if data is None:
            logger.warning("lease.bulletin_too_large", source=self._source, rows=len(rows))
            return
        try:
            await in_time(self._store.post(self._source, Bulletin(number, data)), self._settings.answer_s)
        except TransientError as exc:
            logger.warning("lease.bulletin_failed", source=self._source, error=str(exc))
            return
        self._number, self._since_s = number, _now_s()

    def _observe(self, rows: Sequence[Lease]) -> None:
        self.observer.observe(rows, _now_s())
        self._rows, self._workers = len(rows), len(known_workers(rows))
        self._set_pace()

    def expect(self, shards: int) -> None:
        """The source lists so many: there will be as many rows, even if nobody has made them yet."""
        if self.pace is None:
            self._since_s = _now_s()
        self._shards = shards
        self._set_pace()

    def _set_pace(self) -> None:
        self.pace = pace(max(self._rows, self._shards), self._links, self._workers, self._settings)


def _is_later(row: Lease, own: Lease) -> bool:
    """A wish changes no beat, and beats go on without it."""
    if own.owner is not None and own.wanted_by is not None:
        return row.wanted_by is not None or row.epoch > own.epoch
    return (row.epoch, row.beat) >= (own.epoch, own.beat)


async def in_time(call: Awaitable[T], answer_s: float) -> T:
    """The store's answer. Raises StoreUnavailable when it does not come in time; a write may take effect yet."""
    try:
        async with asyncio.timeout(answer_s):
            return await call
    except TimeoutError as exc:
        raise StoreUnavailable(f"no answer within {answer_s:g} s", code="timeout") from exc


def _now_s() -> float:
    return asyncio.get_running_loop().time()
