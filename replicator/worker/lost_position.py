"""What becomes of a link whose place in the source is lost, or may be; both are counted and said, never passed over.

A source tells by PositionLost that a number is none of the shard's, that it was trimmed, or that the shard is gone. The
first two begin again at the link's own start. A shard that is gone has nothing left to read, so the link is done with
it: else the children of a shard that was split before an outage longer than the retention would wait for ever.

Where a lake continues the source (`worker.continued`), what it gives is not lost, and the holes that it has are counted
when the link comes to them.

Kinesis does not tell: it passes over what was trimmed. But everything behind a record arrived after it, and after any
look that found nothing behind it. So only when both are about as old as the retention, or not known because the link
has just begun here, the source is asked whether that record is still kept, once per page, and behind the reading, so
that nothing waits for the answer. It is asked after the page was read: what is kept then was kept before. A worker that
is killed in the second between the two takes its question with it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from replicator.core.model import After, Checkpoint, Position, ShardEnd, ShardId, TrimHorizon, position_text
from replicator.errors import PositionLost, TransientError
from replicator.ports import Clock, Source
from replicator.worker.continued import ContinuedSource
from replicator.worker.link import Link
from replicator.worker.retention import Retention
from replicator.worker.shard_log import ShardLog
from replicator.worker.window import LONG_AGO_S, Batch

logger = structlog.get_logger(__name__)

PAUSE_S = 1.0
"""Before a lost position is left, and between two questions that got no answer: no loss may be met in a tight loop."""
GONE_ASKS = 3
"""A shard counts as gone when it is missing so often, `GONE_PAUSE_S` apart: a listing may be behind for a moment."""
GONE_PAUSE_S = 5.0
SAID_EVERY_S = 60.0
ASKED_MAX = 1
"""Positions that wait for the one being asked about; then the link waits too."""
RESTARTED = "the link goes on at its start, so some events may be sent twice; see whether the table was restored"
TRIMMED = "events are lost: compare with the source's own copy, and give the link or the retention more room"
GONE = (
    "the shard left the source before the link had finished it, so what it had not read is lost, unless it had read"
    " all; the link goes on with the children. Compare with the source's own copy, and lengthen the retention"
)
MAY_HAVE_LOST = (
    "the record at the position is no longer kept. Were there others behind it that are as old, they are lost; a shard"
    " that was quiet for as long looks the same. Compare with the source's own copy"
)


class Losses:
    """Of one (link, shard). ``start`` is where the link begins; ``retention`` of the source."""

    def __init__(
        self,
        *,
        link: Link,
        shard: ShardId,
        source: Source,
        log: ShardLog,
        start: Callable[[], Awaitable[Position]],
        retention: Retention,
        clock: Clock,
        continued: ContinuedSource | None = None,
    ) -> None:
        """``continued``: what the log reads, where a lake gives what the source no longer has."""
        self._link = link
        self._shard = shard
        self._source = source
        self._log = log
        self._start = start
        self._retention = retention
        self._clock = clock
        self._continued = continued
        self._told: Position | None = None
        """The last hole that this link came to."""
        self._fresh_s = LONG_AGO_S
        """Loop time before which nothing behind the link's position has arrived."""
        self._asked: asyncio.Queue[After] = asyncio.Queue(ASKED_MAX)
        self._said_s = LONG_AGO_S

    async def restart(self, lost: PositionLost, position: Position) -> Position:
        """Where to go on, after a pause; ShardEnd when the shard is gone.

        What is missing behind ``position``, where its link stands, is then missing in a lake that this link fills.
        """
        await asyncio.sleep(PAUSE_S)
        if await self._is_gone():
            self._count("shard_gone", is_lost=True)
            if self._continued is not None:
                self._continued.add_hole(position)
                self._told = position
            self._say("shard.gone", error=str(lost), do=GONE)
            return ShardEnd()
        self._count("trimmed" if lost.is_trimmed else "position_lost", is_lost=lost.is_trimmed)
        start = await self._start()
        do = TRIMMED if lost.is_trimmed else RESTARTED
        self._say("shard.position_lost", error=str(lost), restart=position_text(start), do=do)
        return start

    def _count(self, reason: str, *, is_lost: bool) -> None:
        self._link.count("shard_restarts_total", reason=reason)
        if is_lost:
            self._link.count("retention_losses_total", reason=reason)

    def _say(self, event: str, **what: str) -> None:
        logger.error(event, link=self._link.name, shard=self._shard, **what)

    async def _is_gone(self) -> bool:
        """Whether the shard has not even a beginning, asked often enough to believe it."""
        asks = 0
        while True:
            try:
                await self._source.open(self._shard, TrimHorizon())
            except PositionLost:
                asks += 1
                if asks == GONE_ASKS:
                    return True
                await asyncio.sleep(GONE_PAUSE_S)
            except TransientError as exc:
                await self._unanswered(exc)
            else:
                return False

    def begun(self, durable: Checkpoint, position: Position) -> None:
        """The link begins here. Where no record was ever done, the first attempt tells how old the first record is."""
        floor_ms = durable.attempt_floor_ms
        if floor_ms is None or isinstance(position, After | ShardEnd):
            return
        if self._continued is not None and self._continued.tells(position):
            return
        if self._is_old(self._loop_s(floor_ms), _now_s()):
            self._told = position
            self._may_have_lost(position)

    def may_have_passed(self, position: Position, run: Batch) -> bool:
        """Whether the run, which was read behind the position, may have passed over what was trimmed: then `ask`.

        A source that a lake continues knows by itself, so nothing is asked.
        """
        if self._continued is not None:
            if self._told != position and self._continued.has_hole(position):
                self._told = position
                self._may_have_lost(position)
            return False
        since_s = max(self._fresh_s, run.quiet_s)
        if run.records:
            self._fresh_s = self._loop_s(run.records[-1].record.arrival_ms)
        elif run.is_tip and run.after == position:
            self._fresh_s = max(self._fresh_s, self._log.read_ok_s or LONG_AGO_S)
        return isinstance(position, After) and self._is_old(since_s, min(run.read_s, _now_s()))

    def _loop_s(self, ms: int) -> float:
        return _now_s() - (self._clock.now_ms() - ms) / 1000

    async def ask(self, position: Position) -> None:
        """Let `run` find out about the position; waits only while it has others to ask about."""
        if isinstance(position, After):
            await self._asked.put(position)

    def _is_old(self, since_s: float, then_s: float) -> bool:
        """Whether what arrived at ``since_s`` could have been trimmed at ``then_s``."""
        return self._retention.is_old((then_s - since_s) * 1000, self._clock.now_ms() - (_now_s() - then_s) * 1000)

    async def run(self) -> None:
        """Ask about one position after the other until cancelled."""
        while True:
            position = await self._asked.get()
            if not await self._is_kept(position):
                self._may_have_lost(position)

    def _may_have_lost(self, position: Position) -> None:
        """Each time is counted, and said not more often than one can read."""
        self._link.count("retention_losses_total", reason="perhaps_trimmed")
        if _now_s() - self._said_s >= SAID_EVERY_S:
            self._said_s = _now_s()
            self._say("shard.may_have_lost", position=position_text(position), do=MAY_HAVE_LOST)

    async def _is_kept(self, position: After) -> bool:
        while True:
            try:
                return await self._log.is_kept(position)
            except PositionLost:
                return True  # whoever reads there is told so, and this is not to be counted twice
            except TransientError as exc:
                await self._unanswered(exc)

    async def _unanswered(self, exc: TransientError) -> None:
        logger.warning("shard.read_failed", link=self._link.name, shard=self._shard, error=str(exc))
        await asyncio.sleep(exc.retry_after_s or PAUSE_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
