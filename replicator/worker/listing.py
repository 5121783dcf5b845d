"""Where a worker has the lease rows from: the table itself, or, in a large fleet, what one of the workers posted of it.

A post that has not changed for most of a period is renewed by whoever finds it so first and gets the turn; turns are
numbers that only grow, so there is one winner each. Who died with the turn in hand is passed over after ``duration_s``,
and whoever hears nothing new for `SILENCE` times as long reads the table itself.

What a worker has written itself it puts into the posts it reads, or it would plan the same moves again: into the one
it knows and the next, which may be in the making already.
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
SILENCE = 3.0
"""Of ``duration_s``: without any news for so long the table is read whatever it costs."""
TRIES_MAX = 1000
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
        """None before anything was read."""
        self._count = 0
        self.shards = 0
        """How many the source lists: there will be as many rows."""

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
        if self.pace is not None and not self.pace.is_shared:
            return await self._from_table()
        begun_s = _now_s()
        posted = await in_time(self._store.bulletin(self._source), self._settings.answer_s)
        if posted is not None and posted.number != self._number:
            return await self._taken_in(posted, begun_s)
        if self.pace is None:
            return await self._from_table()
        return await self._in_turn(begun_s, is_missing=posted is None)

    def wrote(self, row: Lease) -> None:
        """Remember a row as we left it, until a post must have it so."""
        if self.is_shared:
            self._own[row.shard] = (row, self._number + 2)

    async def _taken_in(self, posted: Bulletin, begun_s: float) -> News | None:
        is_first = self.pace is None
        self._number, self._since_s = posted.number, begun_s
        rows = decode(self._source, posted.data)
        if rows is None:  # of a newer version: what it says is for others
            return await self._from_table()
        self._observe(rows)
        if not self.is_shared:
            return await self._from_table()
        # The first one may be of any age, and tells no more than how large the fleet was.
        return None if is_first else News(self._with_own(rows), is_own=False, begun_s=begun_s)

    def _with_own(self, rows: Sequence[Lease]) -> Sequence[Lease]:
        self._own = {shard: own for shard, own in self._own.items() if self._number < own[1]}
        if not self._own:
            return rows
        return [self._later_one(row) for row in rows]

    def _later_one(self, row: Lease) -> Lease:
        own = self._own.get(row.shard)
        return own[0] if own is not None and (own[0].epoch, own[0].beat) >= (row.epoch, row.beat) else row

    async def _in_turn(self, begun_s: float, *, is_missing: bool) -> News | None:
        stale_s = begun_s - self._since_s
        if not is_missing and stale_s < self.period_s * STALE:
            return None
        number = self._number + 1
        attempt = min(int(stale_s / self._settings.duration_s), TRIES_MAX - 1)
        turn = number * TRIES_MAX + attempt
        if await in_time(self._store.take_turn(self._source, turn), self._settings.answer_s):
            news = await self._from_table()
            await self._post(number, news.rows)
            return news
        if stale_s > self._settings.duration_s * SILENCE:
            return await self._from_table()
        return None

    async def _from_table(self) -> News:
        begun_s = _now_s()
        answer_s = self._settings.answer_s + self._count / ROWS_PER_S
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
        self._count = max(len(rows), self.shards)
        self.pace = pace(self._count, self._links, len(known_workers(rows)), self._settings)


async def in_time(call: Awaitable[T], answer_s: float) -> T:
    """The store's answer. Raises StoreUnavailable when it does not come in time; a write may take effect yet."""
    try:
        async with asyncio.timeout(answer_s):
            return await call
    except TimeoutError as exc:
        raise StoreUnavailable(f"no answer within {answer_s:g} s", code="timeout") from exc


def _now_s() -> float:
    return asyncio.get_running_loop().time()
