"""The lease loop of one source: beat and checkpoint what is held, take and ask by the rules of `core.leasing`.

Two loops run side by side, so that a slow listing never delays a beat. Every held shard has one task that runs it and,
however it ends, releases it; a handover only tells the runner to drain. A lease that could not be renewed in time is
given up by the worker's own clock before anybody else may take it.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import Struct

from replicator.core.leasing import LeaseSettings, Observer, is_finished, plan
from replicator.core.model import Checkpoint, Lease, LinkName, ShardEnd, ShardId, SourceName
from replicator.errors import Fenced, TransientError
from replicator.ports import LeaseStore, Source, Telemetry

logger = structlog.get_logger(__name__)
T = TypeVar("T")

RENEWALS_AT_ONCE = 16


class ShardRunner(Protocol):
    """What runs a held shard."""

    async def run(self) -> None:
        """Return when the shard is finished for all links, or after `drain`. Raises Fenced."""
        ...

    def checkpoints(self) -> dict[LinkName, Checkpoint]:
        """What may be stored now, or released with once `run` has returned; no I/O."""
        ...

    def drain(self) -> None:
        """Let `run` finish what is under way and return."""
        ...


class Held(Struct, eq=False):
    """A lease of ours. ``renewed_s``: loop time at which the last successful write was begun."""

    lease: Lease
    runner: ShardRunner
    renewed_s: float
    lock: asyncio.Lock
    task: asyncio.Task[None] | None = None
    is_handing_over: bool = False


class LeaseKeeper:
    """Keeps this worker's share of one source's shards."""

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
        self._telemetry = telemetry
        self._rng = rng
        self._observer = Observer()
        self._rows: dict[ShardId, Lease] = {}
        self._listed: frozenset[ShardId] | None = None
        self._incarnation = ""
        self._rounds_to_listing = 0
        self._draining = asyncio.Event()
        self._trouble: dict[str, str] = {"source": "not reached yet", "lease store": "not reached yet"}
        self.held: dict[ShardId, Held] = {}

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Return after `drain`, when every shard was given back."""
        async with asyncio.TaskGroup() as group:
            balancing = group.create_task(self._balance_loop(group))
            renewing = group.create_task(self._renew_loop())
            await self._draining.wait()
            balancing.cancel()
            await asyncio.wait((balancing,))
            for held in self.held.values():
                self._hand_over(held)
            await self._until_released()
            renewing.cancel()

    async def drain(self) -> None:
        """Hand every shard back gracefully; `run` returns then."""
        self._draining.set()
        await self._until_released()

    async def _until_released(self) -> None:
        while tasks := [held.task for held in self.held.values() if held.task is not None]:
            await asyncio.wait(tasks)

    def unready(self) -> list[str]:
        """Why this keeper can't do its part; empty when it can."""
        return [f"{what} of {self._name}: {why}" for what, why in self._trouble.items() if why]

    def parents_done(self, lease: Lease, link: LinkName) -> bool:
        """Whether the link has finished every parent of the shard; one that the source dropped counts as finished."""
        if self._listed is None:
            return False
        return all(self._parent_done(parent, link) for parent in lease.parents)

    def _parent_done(self, parent: ShardId, link: LinkName) -> bool:
        row = self._rows.get(parent)
        if row is None:
            return self._listed is not None and parent not in self._listed
        checkpoint = row.checkpoints.get(link)
        return checkpoint is not None and checkpoint.position == ShardEnd()

    # --- beat ------------------------------------------------------------------------------------------------------

    async def _renew_loop(self) -> None:
        slots = asyncio.Semaphore(RENEWALS_AT_ONCE)

        async def renew(held: Held) -> None:
            async with slots:
                await self._renew_or_give_up(held)

        while True:
            await asyncio.sleep(self._settings.renew_s * (0.9 + 0.2 * self._rng.random()))
            await asyncio.gather(*[renew(held) for held in list(self.held.values())])

    async def _renew_or_give_up(self, held: Held) -> None:
        try:
            await self._renew(held)
        except Fenced as exc:
            self._give_up(held, "fenced", str(exc))
        except (TransientError, TimeoutError) as exc:
            self._trouble["lease store"] = str(exc) or "no answer in time"
            if _now_s() - held.renewed_s > self._settings.give_up_s:
                self._give_up(held, "not_renewed", str(exc))

    async def _renew(self, held: Held) -> None:
        async with held.lock:
            if self.held.get(held.lease.shard) is not held:
                return
            begun_s = _now_s()
            async with asyncio.timeout(self._settings.duration_s * 0.3):
                held.lease = await self._store.renew(held.lease, held.runner.checkpoints())
            held.renewed_s = begun_s
        self._rows[held.lease.shard] = held.lease
        self._trouble["lease store"] = ""
        if held.lease.wanted_by not in (None, self._me):
            self._hand_over(held)

    def surely_holds(self, lease: Lease) -> bool:
        """Whether nobody else can have taken the lease yet, by our own clock, which goes on while we are stopped."""
        held = self.held.get(lease.shard)
        if held is None or held.lease.epoch != lease.epoch:
            return False
        return _now_s() - held.renewed_s <= self._settings.give_up_s

    async def checkpoint_now(self, shard: ShardId) -> None:
        """Store the runner's checkpoints before this returns. Raises Fenced, TransientError or TimeoutError."""
        held = self.held.get(shard)
        if held is None:
            raise Fenced(f"lease {self._name}/{shard} is no longer held")
        await self._renew(held)

    def _give_up(self, held: Held, kind: str, why: str) -> None:
        """Stop at once: whatever this shard's runner writes from now on would be refused or wrong."""
        logger.error("lease.lost", source=self._name, shard=held.lease.shard, kind=kind, error=why)
        self._telemetry.count("lease_moves_total", 1, source=self._name, kind=kind)
        self.held.pop(held.lease.shard, None)
        if held.task is not None:
            held.task.cancel()

    def _hand_over(self, held: Held) -> None:
        if not held.is_handing_over:
            held.is_handing_over = True
            held.runner.drain()

    # --- balance ---------------------------------------------------------------------------------------------------

    async def _balance_loop(self, group: asyncio.TaskGroup) -> None:
        while True:
            try:
                await self._balance(group)
            except TransientError as exc:
                logger.warning("lease.round_failed", source=self._name, error=str(exc))
            await asyncio.sleep(self._settings.renew_s * (0.8 + 0.4 * self._rng.random()))

    async def _balance(self, group: asyncio.TaskGroup) -> None:
        if self._rounds_to_listing <= 0 or self._trouble["source"]:
            await self._told("source", self._list())
        self._rounds_to_listing -= 1
        rows = await self._told("lease store", self._store.rows(self._name))
        self._rows = {row.shard: row for row in rows}
        now_s = _now_s()
        self._observer.observe(rows, now_s)
        current = [row for row in rows if row.incarnation == self._incarnation]
        for row in rows:
            if row.incarnation != self._incarnation:
                await self._replace(row, now_s)
        # What we hold is ours until we say otherwise, whatever an older listing shows.
        moves = plan(current, self._observer, self._me, now_s, self._settings, self._links, self.held.keys())
        for row in moves.take:
            if row.shard not in self.held:
                await self._take(row, group)
        if moves.ask is not None and await self._store.ask(moves.ask, self._me):
            self._telemetry.count("lease_moves_total", 1, source=self._name, kind="asked")
        await self._tidy(current)

    async def _told(self, what: str, call: Coroutine[Any, Any, T]) -> T:
        """The call's result; its failure is remembered for readiness."""
        try:
            result = await call
        except TransientError as exc:
            self._trouble[what] = str(exc)
            raise
        self._trouble[what] = ""
        return result

    async def _list(self) -> None:
        info = await self._source.describe()
        shards = await self._source.shards()
        self._incarnation = info.incarnation
        known = self._rows.keys()
        for shard in shards:
            if shard.id not in known:
                await self._store.create(self._name, shard, info.incarnation)
        self._listed = frozenset(shard.id for shard in shards)
        self._rounds_to_listing = self._settings.list_every

    async def _take(self, row: Lease, group: asyncio.TaskGroup) -> None:
        begun_s = _now_s()
        lease = await self._store.acquire(row, self._me)
        if lease is None:
            return
        kind = "taken_expired" if row.owner is not None else "taken_free"
        logger.info("lease.taken", source=self._name, shard=lease.shard, epoch=lease.epoch, kind=kind)
        self._telemetry.count("lease_moves_total", 1, source=self._name, kind=kind)
        self._rows[lease.shard] = lease
        held = Held(lease, self._start_runner(lease), begun_s, asyncio.Lock())
        self.held[lease.shard] = held
        held.task = group.create_task(self._run_shard(held))

    async def _tidy(self, rows: list[Lease]) -> None:
        """Rows of finished shards that the source no longer lists are of no use to anyone."""
        for row in rows:
            is_gone = self._listed is not None and row.shard not in self._listed
            if is_gone and row.owner is None and is_finished(row, self._links):
                await self._store.delete(row)

    async def _replace(self, row: Lease, now_s: float) -> None:
        """The source was deleted and made again: what the row says is about a stream that is gone."""
        held = self.held.get(row.shard)
        if held is not None and held.lease.incarnation != self._incarnation:
            logger.error("source.made_anew", source=self._name, shard=row.shard, was=row.incarnation)
            self._give_up(held, "source_made_anew", "the source has another creation time")
        if row.owner is None:
            if await self._store.delete(row):
                self._telemetry.count("lease_moves_total", 1, source=self._name, kind="row_of_old_incarnation")
                self._rounds_to_listing = 0
        elif self._observer.age_s(row.shard, now_s) >= self._settings.duration_s:
            taken = await self._store.acquire(row, self._me)
            if taken is not None:
                await self._store.release(taken, {})

    # --- one shard -------------------------------------------------------------------------------------------------

    async def _run_shard(self, held: Held) -> None:
        shard = held.lease.shard
        try:
            await held.runner.run()
        except Fenced as exc:
            self._give_up(held, "fenced", str(exc))
            return
        except Exception:  # whatever went wrong in one shard, the others go on and somebody takes this one again
            logger.exception("shard.failed", source=self._name, shard=shard)
            self._telemetry.count("lease_moves_total", 1, source=self._name, kind="failed")
            await asyncio.sleep(self._settings.renew_s)
        await self._release(held)
        self._rounds_to_listing = 0

    async def _release(self, held: Held) -> None:
        """Give the lease back with its last checkpoints; when the store stays away it expires by itself."""
        shard = held.lease.shard
        while self.held.get(shard) is held:
            try:
                async with held.lock:
                    await self._store.release(held.lease, held.runner.checkpoints())
            except Fenced as exc:
                self._give_up(held, "fenced", str(exc))
            except TransientError as exc:
                if _now_s() - held.renewed_s > self._settings.give_up_s:
                    self._give_up(held, "not_released", str(exc))
                await asyncio.sleep(self._settings.renew_s / 3)
            else:
                logger.info("lease.released", source=self._name, shard=shard, epoch=held.lease.epoch)
                self._telemetry.count("lease_moves_total", 1, source=self._name, kind="released")
                del self.held[shard]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
