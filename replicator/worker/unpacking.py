"""A source whose KPL aggregates come as their user records, each with its own key, data and sub-sequence.

How it works: pages are unpacked before anybody sees them, so events are prepared, tagged and routed one by one. All
user records of an aggregate have its sequence number, and a position stands behind a sequence number only.

Why it is safe: a page is cut behind whole records only, here and wherever positions are compared; spans
(`whole_end`) keep to it too. So no position ever skips the rest of an aggregate.
"""

from collections.abc import Sequence

from replicator.core.kpl import MAGIC, user_records
from replicator.core.model import After, Position, Record, Shard, ShardId
from replicator.ports import Cursor, Page, Source, SourceInfo

PAGE_EVENTS_MAX = 10_000
"""A page ends behind the record that reaches it. As many as GetRecords gives records: 10 MiB of small events
would be hundreds of thousands."""
GROWTH = 8
"""After a page that was cut, reads ask for as many records as it kept, and for an eighth more with every page that was
not, so that little is read twice."""


class UnpackedSource:
    """Implements `ports.Source`; one for each shard that is read, because it learns how many records make a page."""

    def __init__(self, source: Source, events_max: int = PAGE_EVENTS_MAX) -> None:
        self._source = source
        self._events_max = events_max
        self._records_max = events_max

    async def describe(self) -> SourceInfo:
        return await self._source.describe()

    async def shards(self) -> Sequence[Shard]:
        return await self._source.shards()

    async def open(self, shard: ShardId, position: Position) -> Cursor:
        return await self._source.open(shard, position)

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        """As `ports.Source.read`, in whole records; the page may hold more events than ``records_max``."""
        page = await self._source.read(cursor, min(records_max, self._records_max))
        for record in page.records:
            if record.data.startswith(MAGIC):
                return await self._unpacked(cursor.shard, page)
        self._grow()
        return page

    async def is_kept(self, shard: ShardId, position: After) -> bool:
        return await self._source.is_kept(shard, position)

    async def _unpacked(self, shard: ShardId, page: Page) -> Page:
        events: list[Record] = []
        for number, record in enumerate(page.records, 1):
            events += user_records(record)
            if len(events) >= self._events_max and number < len(page.records):
                self._records_max = number
                following = await self._source.open(shard, After(record.sequence))
                return Page(tuple(events), following, max(1, page.behind_ms), number)
        self._grow()
        return Page(tuple(events), page.next, page.behind_ms, len(page.records))

    def _grow(self) -> None:
        self._records_max = min(self._events_max, self._records_max + self._records_max // GROWTH + 1)
