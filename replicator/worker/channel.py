"""One link on one shard: take records from the shard's log, decide, claim, publish, settle, move the watermark.

How it works: records are admitted in runs (spans). A span is claimed with one call, its events wait in lanes, up to
``in_flight_max`` requests take heads of disjoint lanes, and when every event of the span is done the span is settled
with one call. The watermark moves over the longest prefix of settled spans.

Why it is safe: nothing is published before its attempt floor is durable, nothing is settled before it is stored or
quarantined, and nothing is checkpointed before it is settled. What a dead owner may have published is found by
reading the sink back before the first event of this session is sent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec.structs import replace

from replicator.core.claims import DONE
from replicator.core.convergence import CONFLICT
from replicator.core.lending import Account
from replicator.core.model import Checkpoint, Position, ShardEnd, ShardId, position_text
from replicator.core.watermark import furthest
from replicator.errors import PoisonEvent, TransientError
from replicator.ports import Queue
from replicator.worker.admission import Gate, key_held
from replicator.worker.claiming import Claiming
from replicator.worker.doubt import Doubt
from replicator.worker.held_keys import HeldKeys
from replicator.worker.heritage import NOTHING_OPEN, Heritage
from replicator.worker.intake import Intake
from replicator.worker.lake_stretch import LakeStretch
from replicator.worker.link import Link
from replicator.worker.lost_position import Losses
from replicator.worker.prepare import Prepared
from replicator.worker.publisher import Publisher
from replicator.worker.recovery import Recovery
from replicator.worker.room import Room
from replicator.worker.settlement import Settlement
from replicator.worker.shard_log import ShardLog
from replicator.worker.span import Item, Span
from replicator.worker.waiting import unless

logger = structlog.get_logger(__name__)

T = TypeVar("T")

STORE_RETRY_S = 0.5
LAG_VALID_S = 30.0


class Channel:
    """The pipeline of one (link, shard) under one lease."""

    def __init__(
        self,
        *,
        link: Link,
        shard: ShardId,
        log: ShardLog,
        losses: Losses,
        durable: Checkpoint,
        claiming: Claiming,
        recovery: Recovery,
        admission: Gate,
        make_durable: Callable[[], Awaitable[None]],
        may_send: Callable[[], bool],
        account: Account,
        held: HeldKeys,
        queue: Queue | None = None,
    ) -> None:
        """``account`` is what this channel may hold, closed when it has run. ``queue``: the source is one."""
        self.link = link
        self.shard = shard
        self._log = log
        self._losses = losses
        self._stretch = LakeStretch(link, shard)
        self._durable = durable
        self._claiming = claiming
        self._recovery = recovery
        self._heritage = Heritage(link, durable, claiming, recovery, shard if queue is None else None)
        self._admission = admission
        self._make_durable = make_durable
        self._held = held
        self._settlement = Settlement(
            claiming, durable.position, self._on_settled, queue.done if queue else None, lambda: account.pool.is_wanted
        )
        self._account = account
        self._room = Room(link.settings, self._settlement, account)
        self._publisher = Publisher(link, recovery, may_send, self._settlement.close, self._poisoned, held)
        self._floor_ms = durable.attempt_floor_ms
        self._may_attempt = False
        self._draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drain_until_s = 0.0
        self._intake = Intake(link, log, losses, self._room, self._until_room, self._draining)
        self._intake.begin(durable.position)
        self._has_begun = False
        self.final: Checkpoint | None = None
        """What to release with; set when `run` has returned after `drain`."""

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Return when the shard has ended for this link, or after `drain`. Raises Fenced."""
        try:
            await self._run()
        finally:
            self._intake.end()
            self._account.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            intake = group.create_task(self._take_in())
            beside = (group.create_task(self._settlement.run()), group.create_task(self._losses.run()))
            publishing = group.create_task(self._publisher.run())
            await self._until_taken_in(intake)
            self._publisher.hurry()
            await self._until_settled()
            self._publisher.stop_taking()
            is_quiet = await self._until_quiet(publishing)
            for task in beside:
                task.cancel()
        if not await self._settlement.settle_partly():
            logger.warning("drain.unmarked", link=self.link.name, shard=self.shard)
        self.final = self._final(is_quiet)

    def drain(self, until_s: float) -> None:
        """Take in nothing more, finish what is under way until ``until_s`` (loop time), then let `run` return."""
        self._drain_until_s = until_s
        if not self._draining.done():
            self._draining.set_result(None)

    async def _until_taken_in(self, intake: asyncio.Task[None]) -> None:
        """The end of the shard, or of the draining budget: a store that is away may hold a batch up for long."""
        await asyncio.wait((intake, self._draining), return_when=asyncio.FIRST_COMPLETED)
        if not intake.done():
            await asyncio.wait((intake,), timeout=max(0.0, self._drain_until_s - _now_s()))
            intake.cancel()
            await asyncio.wait((intake,))

    async def _until_settled(self) -> None:
        """Every span settled; while draining only as long as the budget allows."""
        while self._settlement.open:
            if not self._draining.done():
                await self._unless_draining(self._settlement.progress())
                continue
            if self.link.state != "up":
                return
            try:
                async with asyncio.timeout_at(self._drain_until_s):
                    await self._settlement.progress()
            except TimeoutError:
                return

    async def _until_quiet(self, publishing: asyncio.Task[None]) -> bool:
        """Whether every request under way has ended; one that is looked up in the sink may take too long."""
        await asyncio.wait((publishing,), timeout=max(0.5, self._drain_until_s - _now_s()))
        if publishing.done():
            return True
        publishing.cancel()
        return False

    # --- begin -----------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._held.refresh()
        session = await self._claiming.attach()
        if session is not None:
            self._intake.position = furthest(self._durable.position, session.watermark)
            self._settlement.start_at(self._intake.position)
        self._losses.begun(self._durable, self._intake.position)
        await self._heritage.take_over(session)
        self._has_begun = True

    @property
    def state(self) -> str:
        """``starting``, ``in_doubt`` while the sink is being read back, ``held``, ``running``, ``stopped``."""
        if self.final is not None:
            return "stopped"
        if self._recovery.held:
            return "held"
        if self._heritage.is_looking:
            return "in_doubt"
        return "running" if self._has_begun else "starting"

    # --- take in ---------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        await self._unless_draining(self._begin())
        while not self._draining.done() and self._intake.position != ShardEnd():
            await (self._take_run() if self._room.is_left else self._until_progress())
        self._room.leave()

    async def _take_run(self) -> None:
        """Take in what follows, as far as it is one span."""
        found = await self._intake.next_run()
        if found is None:
            return
        run, size_bytes = found
        position = self._intake.position
        self._stretch.note(position, run)
        if self._losses.may_have_passed(position, run):
            await self._unless_draining(self._losses.ask(position))
        if run.records or run.after != position:
            await self._take_span(run.records, run.after, size_bytes)
        self._intake.took(run)
        if run.is_tip:
            # Whatever a former owner attempted was stored here before now.
            self._heritage.passed()

    async def _until_room(self) -> None:
        """Until there may be memory for what is to be taken in, or draining begins."""
        self._publisher.hurry()
        await self._unless_draining(self._room.wait())
        self._publisher.hurry(is_on=False)

    async def _until_progress(self) -> None:
        """Until a span is settled or draining begins."""
        self._publisher.hurry()
        await self._unless_draining(self._settlement.progress())
        self._publisher.hurry(is_on=False)

    async def _take_span(self, records: Sequence[Prepared], end: Position, size_bytes: int) -> None:
        """``size_bytes`` are accounted for it, until more is known."""
        span = Span(end, oldest_ms=records[0].record.arrival_ms if records else 0)
        self._settlement.add(span)
        span.items = await self._admission.admit(span, records)
        self._account.add(span.size_bytes - size_bytes)
        self._settlement.opened(span)
        if not span.items:
            await asyncio.sleep(0)  # others have their turn, however much of the window nobody wants
        elif await self._allow_attempts(span):
            await self._claim(span)

    async def _allow_attempts(self, span: Span) -> bool:
        """Make the attempt floor durable before the first attempt; false when draining came first.

        Where sending again does no harm there is nothing to look for later, so there is no floor.
        """
        if self.link.settings.is_lake:
            return True
        peer = self.link.peer_time_at_once() or await self._unless_draining(self.link.peer_time())
        if peer is None:
            return False
        floor_ms = peer.earliest_ms
        inherited_ms = self._heritage.floor_ms
        span.floor_ms = floor_ms if inherited_ms is None else inherited_ms
        if self._may_attempt:
            return True
        self._floor_ms = floor_ms
        self._may_attempt = True
        return self._heritage.is_covered() or await self._until_durable()

    async def _until_durable(self) -> bool:
        while not self._draining.done():
            try:
                await self._make_durable()
            except (TransientError, TimeoutError) as exc:
                logger.warning("checkpoint.unavailable", link=self.link.name, shard=self.shard, error=str(exc))
                await asyncio.sleep(STORE_RETRY_S)
            else:
                return True
        return False

    async def _claim(self, span: Span) -> None:
        span.batch, verdicts = await self._claiming.claim([item.prepared.claim for item in span.items])
        span.session = self._claiming.session
        if self._heritage.must_look_up(span.batch) and not await self._heritage.look_up(self._unless_draining):
            return
        span.has_former_marks = DONE in verdicts and self._heritage.relies_on_marks
        items, done = span.items, self._done_before(span.items, verdicts)
        if done:
            items = [item for item in items if item not in done]
        held = [item for item in items if item.is_held] if self._held.is_on else []
        if held:
            items = [item for item in items if not item.is_held]
        if unproven := self._heritage.unproven():
            for item in items:
                item.doubt = unproven
        self._publisher.add(items)
        self._settlement.close(done)
        for item in held:
            await self._poisoned(item, key_held())

    def _done_before(self, items: Sequence[Item], verdicts: bytes) -> set[Item]:
        done: set[Item] = set()
        if DONE in verdicts:
            done = {item for item, verdict in zip(items, verdicts, strict=True) if verdict == DONE}
        self.link.count("events_dropped_total", len(done), reason="done_before")
        if self._heritage.has_found:
            landed = {item for item in items if item not in done and self._heritage.has_landed(item.prepared.origin)}
            self.link.count("in_doubt_found_total", len(landed))
            done |= landed
        return done

    def _on_settled(self, span: Span) -> None:
        self._admission.settled(span)
        self._account.add(-span.size_bytes)

    # --- finish ----------------------------------------------------------------------------------------------------

    async def _poisoned(self, item: Item, poison: PoisonEvent) -> None:
        await self._admission.quarantine(item.prepared, poison, item.attempts)
        item.is_put_away = poison.reason != CONFLICT
        self._settlement.close((item,))

    # --- what is durable -------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """What may be stored now. ``released`` stays as it was read until this session attempts something."""
        if not self._may_attempt:
            return replace(self._durable, position=self._settlement.position, lifetime=self._heritage.inherited())
        return Checkpoint(self._settlement.position, self._floor(), lifetime=self._heritage.lifetime())

    def _floor(self) -> int | None:
        if self._heritage.floor_ms is not None:
            return self._heritage.floor_ms
        floors = [span.floor_ms for span in self._settlement.open if span.floor_ms is not None]
        return min(floors) if floors else self.link.peer_estimate_ms() or self._floor_ms

    def _final(self, is_quiet: bool) -> Checkpoint:
        checkpoint = self.checkpoint()
        if not self._may_attempt or not is_quiet or self._heritage.floor_ms is not None:
            return checkpoint
        partly, session = self._settlement.partly_done, self._claiming.session
        if not partly:
            return replace(checkpoint, released=NOTHING_OPEN)
        if not all(span.is_marked and span.session is session and not span.has_former_marks for span in partly):
            return checkpoint
        age_ms = round((_now_s() - min([span.marked_s for span in partly])) * 1000)
        return replace(checkpoint, released=self._claiming.mark(age_ms))

    async def forget(self) -> None:
        await self._claiming.forget()

    # --- what is seen ----------------------------------------------------------------------------------------------

    def lag_ms(self, now_ms: int) -> int | None:
        """Age of the oldest record not yet done, or else of the last one taken in; 0 at the tip; None: not known."""
        oldest = min((span.oldest_ms for span in self._settlement.open if span.oldest_ms), default=None)
        if oldest is not None:
            return max(0, now_ms - oldest)
        if self._log.read_ok_s is None or _now_s() - self._log.read_ok_s > LAG_VALID_S:
            return None
        if self._intake.is_at_tip:
            return 0
        if self._log.reads_alone(self._intake.position):  # What the log knows is where others read.
            return None if self._intake.arrival_ms is None else max(0, now_ms - self._intake.arrival_ms)
        return self._log.behind_ms

    def watermark_age_ms(self) -> int:
        return int(self._settlement.age_s(_now_s()) * 1000)

    @property
    def lane_depth(self) -> int:
        return self._publisher.lane_depth

    @property
    def doubt(self) -> Doubt:
        return Doubt(self._heritage.is_looking, self._recovery.held > 0, self._publisher.in_doubt)

    @property
    def open_bytes(self) -> int:
        return self._settlement.open_bytes

    @property
    def held_bytes(self) -> int:
        """Of records that are in hand and not taken in."""
        return self._intake.held_bytes

    def status(self, now_ms: int) -> dict[str, object]:
        return {
            "state": self.state,
            "position": position_text(self._settlement.position),
            "lag_ms": self.lag_ms(now_ms),
            "open_spans": len(self._settlement.open),
            "open_bytes": self._settlement.open_bytes,
            "waiting": self._publisher.waiting,
            "in_flight": self._publisher.in_flight,
            "in_doubt": self._publisher.in_doubt,
            "lane_depth": self.lane_depth,
            "attached": self._log.is_attached(self._intake.position),
            **self._stretch.status(),
        }

    async def _unless_draining(self, awaitable: Awaitable[T]) -> T | None:
        """The awaitable's result, or None (and the awaitable cancelled) when draining begins first."""
        return await unless(self._draining, awaitable)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
