"""The lease loop of one source: beat and checkpoint what is held, take and ask by the rules of `core.leasing`.

Two loops run side by side, so that a slow listing never delays a beat. Every held shard has one task that runs it and,
however it ends, releases it; a handover only tells the runner to drain. An alarm per held shard stops it when it could
not be renewed in time, whatever the loops are waiting for, before anybody else may take it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from replicator.core.leasing import LeaseSettings, View, is_finished, parents_done, plan, scattered, without_marks
from replicator.core.model import Checkpoint, Lease, LinkName, Shard, ShardEnd, ShardId, SourceName
from replicator.errors import ConfigError, Fenced, TransientError
from replicator.ports import LeaseStore, Source, SourceInfo, Telemetry
from replicator.worker.listing import Listing, News, in_time
from replicator.worker.retention import Retention

logger = structlog.get_logger(__name__)
T = TypeVar("T")
RENEWALS_AT_ONCE = 16
CREATED_AT_ONCE = 100
"""Rows of new shards that a worker of a large fleet makes in one round: the others make some as well."""
SOURCE, STORE = "source", "lease store"


class ShardRunner(Protocol):
    """What runs a held shard."""

    async def run(self) -> None:
        """Return when the shard is finished for all links, or after `drain`. Raises Fenced, and ConfigError."""

    def checkpoints(self) -> dict[LinkName, Checkpoint]:
        """What may be stored now, or released with once `run` has returned; no I/O."""

    def drain(self) -> None:
        """Let `run` finish what is under way and return."""


class Held(Struct, eq=False):
    """A lease of ours. ``lock`` keeps its writes apart; ``alarm`` gives it up when it was not renewed in time."""

    lease: Lease
    runner: ShardRunner
    lock: asyncio.Lock
    alarm: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    is_handing_over: bool = False


class LeaseKeeper:
    """Keeps this worker's share of one source's shards. ``me`` must be new for every process."""

    def __init__(
        self,
        *,
        store: LeaseStore,
        source: Source,
        source_name: SourceName,
        links: frozenset[LinkName],
        me: str,
        settings: LeaseSettings,
        start_runner: Callable[[Lease], ShardRunner],
        retention: Retention,
        telemetry: Telemetry,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._source = source
        self._name = source_name
        self._links = links
        self._me = me
        self._settings = settings
        self._start_runner = start_runner
        self._retention = retention
        self._telemetry = telemetry
        self._rng = rng
        self._listing = Listing(store, source_name, links=len(links), settings=settings)
        self._rows: dict[ShardId, Lease] = {}
        self._listed: frozenset[ShardId] = frozenset()
        self._judged: frozenset[ShardId] = frozenset()  # rows that were there before the source was last looked at
        self._incarnation = ""
        self._rounds_to_listing = 0
        self._draining = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._trouble: dict[str, str] = {SOURCE: "not reached yet", STORE: "not reached yet"}
        self.held: dict[ShardId, Held] = {}

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Return after `drain`, when every shard was given back. Raises ConfigError in a group: a row can't be read."""
        self._stopped.clear()
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew_loop())
                await self._balance_loop(group)
                self._hand_over(*self.held.values())
                while tasks := [held.task for held in self.held.values() if held.task is not None]:
                    await asyncio.wait(tasks)
                renewing.cancel()
        finally:
            for held in list(self.held.values()):
                self._forget(held)
            self._stopped.set()

    async def drain(self) -> None:
        """Hand every shard back gracefully; `run` returns then."""
        self._draining.set()
        self._hand_over(*self.held.values())
        await self._stopped.wait()

    def unready(self) -> list[str]:
        """Why this keeper can't do its part; empty when it can."""
        return [f"{what} of {self._name}: {why}" for what, why in self._trouble.items() if why]

    @property
    def has_finished(self) -> bool:
        """Whether every shard that the source lists, or that has a row, is done for all links."""
        is_known = bool(self._listed) and self._listed <= self._rows.keys()
        return is_known and all(is_finished(row, self._links) for row in self._rows.values())

    def parents_done(self, lease: Lease, link: LinkName) -> bool:
        """Whether the link has finished every parent of the shard; one that the source dropped counts as finished."""
        return parents_done(lease, link, self._rows, self._listed)

    def has_finished_parent(self, lease: Lease, link: LinkName) -> bool:
        """Whether it is known here that the link has done a parent of the shard."""
        rows = [row for parent in lease.parents if (row := self._rows.get(parent)) is not None]
        return any(link in row.checkpoints and row.checkpoints[link].position == ShardEnd() for row in rows)

    # --- beat ------------------------------------------------------------------------------------------------------

    async def _renew_loop(self) -> None:
        slots = asyncio.Semaphore(RENEWALS_AT_ONCE)
        while True:
            await asyncio.sleep(self._settings.renew_s * (0.9 + 0.2 * self._rng.random()))
            async with asyncio.TaskGroup() as group:
                for held in list(self.held.values()):
                    group.create_task(self._renew_or_give_up(held, slots))

    async def _renew_or_give_up(self, held: Held, slots: asyncio.Semaphore) -> None:
        """A renewal that merely failed is repeated in the next round; the alarm decides when it is too late."""
        try:
            async with slots:
                await self._renew(held)
        except Fenced as exc:
            self._give_up(held, "fenced", str(exc))
        except TransientError as exc:
            self._trouble[STORE] = str(exc)

    async def _renew(self, held: Held) -> None:
        async with held.lock:
            self._must_hold(held, held.lease.shard)
            begun_s = _now_s()
            lease = await self._in_time(self._store.renew(held.lease, held.runner.checkpoints()))
            self._must_hold(held, held.lease.shard)
            held.lease = self._rows[lease.shard] = lease
            self._wind(held, begun_s)
            self._trouble[STORE] = ""
        if lease.wanted_by not in (None, self._me):
            self._hand_over(held)

    def surely_holds(self, lease: Lease) -> bool:
        """Whether nobody else can have taken the lease yet, by our own clock, which goes on while we are stopped."""
        held = self.held.get(lease.shard)
        alarm = held.alarm if held is not None and held.lease.epoch == lease.epoch else None
        return alarm is not None and _now_s() < alarm.when()

    async def checkpoint_now(self, shard: ShardId) -> None:
        """Store the runner's checkpoints before this returns. Raises Fenced or TransientError: then they may not be."""
        await self._renew(self._must_hold(self.held.get(shard), shard))

    def _must_hold(self, held: Held | None, shard: ShardId) -> Held:
        if held is None or self.held.get(shard) is not held:
            raise Fenced(f"lease {self._name}/{shard} is no longer held")
        return held

    def _wind(self, held: Held, begun_s: float) -> None:
        """Set the alarm by when a successful write was begun; it may have taken effect at any time since."""
        if held.alarm is not None:
            held.alarm.cancel()
        until_s, why = begun_s + self._settings.give_up_s, "no renewal took effect in time"
        held.alarm = asyncio.get_running_loop().call_at(until_s, self._give_up, held, "not_renewed", why)

    def _give_up(self, held: Held, kind: str, why: str) -> None:
        """Stop at once: whatever this shard's runner writes from now on would be refused or wrong."""
        if self.held.get(held.lease.shard) is not held:
            return
        logger.error("lease.lost", source=self._name, shard=held.lease.shard, kind=kind, error=why)
        self._moved(kind)
        self._forget(held)
        if held.task is not None:
            held.task.cancel()

    def _forget(self, held: Held) -> None:
        if held.alarm is not None:
            held.alarm.cancel()
        if self.held.get(held.lease.shard) is held:
            del self.held[held.lease.shard]

    def _hand_over(self, *leases: Held) -> None:
        for held in leases:
            if not held.is_handing_over:
                held.is_handing_over = True
                held.runner.drain()

    # --- balance ---------------------------------------------------------------------------------------------------

    async def _balance_loop(self, group: asyncio.TaskGroup) -> None:
        while not self._draining.is_set():
            try:
                await self._balance(group)
            except TransientError as exc:
                logger.warning("lease.round_failed", source=self._name, error=str(exc))
            await self._draining_within(self._listing.period_s * (0.8 + 0.4 * self._rng.random()))

    async def _balance(self, group: asyncio.TaskGroup) -> None:
        if self._listing.pace is None:
            self._listing.expect(len(await self._told(SOURCE, self._source.shards())))
        if (news := await self._news()) is None:
            return
        # A row of another incarnation or shard may be newer than what we know of the source: look before judging it.
        is_odd = not all(self._is_current(row) for row in news.rows)
        if is_odd or self._rounds_to_listing <= 0 or self._trouble[SOURCE]:
            info = await self._told(SOURCE, self._source.describe())
            shards = await self._told(SOURCE, self._source.shards())
            await self._told(STORE, self._adjust(news, info, shards))
            if (news := await self._news()) is None:
                return
        self._rounds_to_listing -= 1
        await self._move(news, group)

    async def _move(self, news: News, group: asyncio.TaskGroup) -> None:
        view = self._view(news)
        current = [row for row in news.rows if self._is_current(row)]
        moves = plan(current, view, self._links)
        for row in moves.take:
            if not self._draining.is_set():
                await self._take(row, group)
        for row in moves.ask:
            if await self._in_time(self._store.ask(row, self._me)):
                self._listing.wrote(replace(row, wanted_by=self._me))
                self._moved("asked")
        for row in current if news.is_own else ():
            is_gone = row.shard not in self._listed and is_finished(row, self._links)
            if is_gone and view.has_expired(row):
                await self._remove(row, view)

    def _is_current(self, row: Lease) -> bool:
        """The last listing tells of this shard, be it by leaving it out. Shards made after it are not in it either."""
        is_known = row.shard in self._listed or row.shard in self._judged
        return is_known and row.incarnation == self._incarnation

    async def _news(self) -> News | None:
        news = await self._told(STORE, self._listing.read())
        if news is not None:
            self._rows = {row.shard: row for row in news.rows}
        return news

    def _view(self, news: News) -> View:
        observer, is_shared = self._listing.observer, self._listing.is_shared
        return View(self._me, self.held.keys(), observer, news.begun_s, self._settings, is_shared)

    async def _adjust(self, news: News, info: SourceInfo, shards: Sequence[Shard]) -> None:
        """Make the rows fit the source. It was looked at after they were read, so an odd one is an old one."""
        if info.retention_ms != self._retention.ms:
            await self._in_time(self._retention.note(info.retention_ms))
        if self._incarnation not in ("", info.incarnation):
            logger.error("source.made_anew", source=self._name, was=self._incarnation, now=info.incarnation)
        self._incarnation = info.incarnation
        self._listed = frozenset(shard.id for shard in shards)
        self._judged = frozenset(row.shard for row in news.rows)
        self._listing.expect(len(shards))
        known = {row.shard for row in news.rows if row.incarnation == info.incarnation}
        for row in news.rows:
            if row.incarnation != info.incarnation:
                await self._replace(row, self._view(news))
        new = [shard for shard in shards if shard.id not in known]
        now = scattered(new, self._me, CREATED_AT_ONCE) if self._listing.is_shared else new
        for shard in now:
            await self._in_time(self._store.create(self._name, shard, info.incarnation))
        self._rounds_to_listing = self._listing.list_every if len(now) == len(new) else 0

    async def _replace(self, row: Lease, view: View) -> None:
        """The source was deleted and made again: what the row says is about a stream that is gone."""
        if (held := self.held.get(row.shard)) is not None and held.lease.incarnation == row.incarnation:
            self._give_up(held, "source_made_anew", "the source has another creation time")
        if await self._remove(row, view):
            logger.error("lease.row_replaced", source=self._name, shard=row.shard, was=row.incarnation)
            self._moved("row_of_old_incarnation")

    async def _remove(self, row: Lease, view: View) -> bool:
        """Delete a row of no more use. Where the owner died or let go without a word it is freed first."""
        if row.owner is not None:
            freed = None if view.is_kept(row) else await self._in_time(self._store.acquire(row, self._me))
            if freed is None:
                return False
            with suppress(Fenced):  # this process stood still, somebody else frees it, and deleting fails as well
                await self._in_time(self._store.release(freed, {}))
            row = replace(freed, owner=None, beat=freed.beat + 1)
        return await self._in_time(self._store.delete(row))

    async def _take(self, row: Lease, group: asyncio.TaskGroup) -> None:
        begun_s = _now_s()
        lease = await self._in_time(self._store.acquire(row, self._me))
        if lease is None:
            return
        kind = "taken_free" if row.owner is None else "taken_expired"
        logger.info("lease.taken", source=self._name, shard=lease.shard, epoch=lease.epoch, kind=kind)
        self._moved(kind)
        held = self.held[lease.shard] = Held(lease, self._start_runner(lease), asyncio.Lock())
        self._rows[lease.shard] = lease
        self._listing.wrote(lease)
        self._wind(held, begun_s)
        held.task = group.create_task(self._run_shard(held))

    # --- one shard -------------------------------------------------------------------------------------------------

    async def _run_shard(self, held: Held) -> None:
        try:
            if await self._runs_out(held):
                await self._release(held, held.runner.checkpoints())
            else:
                await self._draining_within(self._settings.renew_s)  # a shard that fails at once must not spin
                await self._release(held, without_marks(held.runner.checkpoints()))
        except Fenced as exc:
            self._give_up(held, "fenced", str(exc))
        finally:
            self._forget(held)
        self._rounds_to_listing = 0

    async def _runs_out(self, held: Held) -> bool:
        """Run the shard to its end or its drain; False when it failed. The others go on, somebody takes it again."""
        try:
            await held.runner.run()
        except (Fenced, ConfigError):
            raise  # what this version can't read, this worker never will
        except Exception:
            logger.exception("shard.failed", source=self._name, shard=held.lease.shard)
            self._moved("failed")
            return False
        return True

    async def _release(self, held: Held, checkpoints: dict[LinkName, Checkpoint]) -> None:
        """Give the lease back; while the store stays away this is repeated until the alarm ends it. Raises Fenced."""
        while True:
            try:
                async with held.lock:
                    await self._in_time(self._store.release(held.lease, checkpoints))
                break
            except TransientError as exc:
                self._trouble[STORE] = str(exc)
                await asyncio.sleep(self._settings.renew_s / 3)
        self._listing.wrote(replace(held.lease, owner=None, beat=held.lease.beat + 1))
        logger.info("lease.released", source=self._name, shard=held.lease.shard, epoch=held.lease.epoch)
        self._moved("released")

    async def _told(self, what: str, call: Awaitable[T]) -> T:
        """The call's result; its failure is remembered for readiness."""
        try:
            result = await call
        except TransientError as exc:
            self._trouble[what] = str(exc)
            raise
        self._trouble[what] = ""
        return result

    async def _in_time(self, call: Awaitable[T]) -> T:
        return await in_time(call, self._settings.answer_s)

    async def _draining_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()

    def _moved(self, kind: str) -> None:
        self._telemetry.count("lease_moves_total", 1, source=self._name, kind=kind)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
