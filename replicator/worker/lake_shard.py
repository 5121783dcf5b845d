"""What the event lake keeps of one shard of its hub: from an hour on, each event once, in the order of the shard.

Names tell hour, shard and sequence numbers (`core.lake`), so one small listing per hour and region of birth finds the
objects. Within an hour and the next they are put in order by their numbers: arrival times are Kinesis's own guess and
need not grow with them.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from msgspec import Struct

from replicator.core.lake import HOUR_MS, Archived, Run, hour_prefix, run_of
from replicator.core.model import After, AtTimestamp, Position, Region, SequenceNumber, ShardId, SourceName
from replicator.ports import LakeReader
from replicator.worker.replay import merged

LOOK_BACK_DAYS = 800
"""How far back a beginning is looked for: more than twice as long as any stream keeps records (365 days)."""
HOURS_AT_ONCE = 24
"""Listed together when a beginning is looked for."""


class HubLake(Struct, frozen=True):
    """The lake of one hub of this region. ``regions``: whose events may be there."""

    reader: LakeReader
    source: SourceName
    regions: Collection[Region]


class Beginning(Struct, frozen=True):
    """``hour`` to begin with, counted from 1970. Not ``is_whole``: nothing there shows that it begins before."""

    hour: int
    is_whole: bool


class ShardInLake:
    """Every method raises StoreUnavailable."""

    def __init__(self, lake: HubLake, incarnation: str, shard: ShardId, now_ms: Callable[[], int]) -> None:
        self._lake = lake
        self._incarnation = incarnation
        self._shard = shard
        self._now_ms = now_ms

    async def beginning(self, position: Position) -> Beginning:
        """Where what follows the position begins; asked day by day, from now on backwards."""
        oldest = now = self._now_ms() // HOUR_MS
        bound = now - LOOK_BACK_DAYS * 24
        wanted = position.ms // HOUR_MS if isinstance(position, AtTimestamp) else bound
        first = max(bound, wanted - 1)
        for end in range(now + 1, first - 1, -HOURS_AT_ONCE):
            hours = range(end, max(first, end - HOURS_AT_ONCE + 1) - 1, -1)
            for hour, runs in zip(hours, await asyncio.gather(*map(self._runs, hours)), strict=True):
                oldest = hour if runs else oldest
                if isinstance(position, After) and any(run.first <= position.sequence for run in runs):
                    return Beginning(hour - 1, is_whole=True)
        return Beginning(oldest, is_whole=False)

    async def events(
        self, hour: int, behind: SequenceNumber | None, through: SequenceNumber | None
    ) -> AsyncIterator[Archived]:
        """Those between these numbers (the first excluded, the second included, None: no bound), from the hour on."""
        async for event in merged(self._lake.reader, self._in_order(hour, behind, through)):
            if through is not None and event.sequence > through:
                return
            if behind is None or event.sequence > behind:
                yield event

    async def _in_order(
        self, first: int, behind: SequenceNumber | None, through: SequenceNumber | None
    ) -> AsyncIterator[Run]:
        """By their first number; one is given when the hour behind its own is listed too."""
        waiting: list[tuple[Run, int]] = []
        last = self._now_ms() // HOUR_MS + 1
        for hour in range(first, last + 1):
            for run in await self._runs(hour):
                if (behind is None or run.last > behind) and (through is None or run.first <= through):
                    heapq.heappush(waiting, (run, hour))
            while waiting and (waiting[0][1] < hour or hour == last):
                yield heapq.heappop(waiting)[0]

    async def _runs(self, hour: int) -> Sequence[Run]:
        found = []
        for region in self._lake.regions:
            prefix = f"{hour_prefix(self._lake.source, region, hour)}{self._incarnation}-{self._shard}-"
            found += [run for name in await self._lake.reader.names(prefix) if (run := run_of(name)) is not None]
        return found
