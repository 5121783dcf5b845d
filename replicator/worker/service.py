"""One worker of one region: a lease keeper per source, a link per (source, peer), and what they say of themselves."""

import asyncio
import random
from collections.abc import Callable, Container, Sequence
from itertools import count

import structlog

from replicator.core.lake import LAKE
from replicator.core.lending import Memory
from replicator.core.memory import COPIES
from replicator.core.model import AtTimestamp, Checkpoint, Lease, LinkName, Position, ShardId, SourceName, TrimHorizon
from replicator.core.routing import HomeRouter, Router
from replicator.errors import TransientError
from replicator.ports import Clock, QueueTroubles, Source, Telemetry
from replicator.worker.admission import Admission, Gate
from replicator.worker.archiving import Archiving
from replicator.worker.channel import Channel
from replicator.worker.claiming import Claiming, Unclaimed
from replicator.worker.condition import WatchedClaims, WatchedQuarantine
from replicator.worker.continued import ContinuedSource, Readings, owed
from replicator.worker.doubt import in_doubt, link_state, publish
from replicator.worker.held_keys import HeldKeys
from replicator.worker.lake_shard import ShardInLake
from replicator.worker.leasing import LeaseKeeper
from replicator.worker.link import Link
from replicator.worker.lost_position import Losses
from replicator.worker.one_incarnation import OneIncarnation
from replicator.worker.prepare import Preparer, sender_and_origin
from replicator.worker.recovery import Recovery
from replicator.worker.retention import Retention, RetentionWatch, longest
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import ShardLog
from replicator.worker.shard_runner import LeasedShardRunner, position_of
from replicator.worker.unpacking import UnpackedSource

logger = structlog.get_logger(__name__)

STORE_RETRY_S = 0.5
CLOCKS_MS = 60_000
"""So far a peer's clock, by which a first attempt is dated, may be behind ours."""
SPREAD = (5**0.5 - 1) / 2
"""Multiples of the golden ratio, modulo 1, lie apart however many there are: so do the reads of a worker's shards."""
NO_DATA = float("nan")


class Service:
    """Runs until cancelled or drained. Whoever made the adapters closes them."""

    def __init__(
        self,
        identity: Identity,
        sources: Sequence[SourceSetup],
        stores: Stores,
        settings: ServiceSettings,
        *,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
    ) -> None:
        self._identity = identity
        self._sources = tuple(sources)
        self._claims = WatchedClaims(stores.claims)
        self._quarantine = WatchedQuarantine(stores.quarantine)
        self._leases = stores.leases
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._started_ms = clock.now_ms()
        self._memory = Memory(settings.memory_bytes)
        self._read_phases = count()
        self._readings = {setup.name: Readings() for setup in self._sources}
        self._runners: dict[tuple[SourceName, str], LeasedShardRunner] = {}
        self._is_draining = False
        self._held = {
            link.name: HeldKeys(link.name, self._quarantine, is_on=link.settings.on_poison == "hold_key")
            for setup in self._sources
            for link in setup.links
        }
        self._watches = {link.name: RetentionWatch(link.name) for setup in self._sources for link in setup.links}
        self._retentions = {setup.name: Retention(stores.leases, setup.name, clock) for setup in self._sources}
        self._keepers = {setup.name: self._keeper(setup, rng) for setup in self._sources}

    def _keeper(self, setup: SourceSetup, rng: random.Random) -> LeaseKeeper:
        return LeaseKeeper(
            store=self._leases,
            source=setup.source,
            source_name=setup.name,
            links=frozenset(link.name for link in setup.links),
            me=self._identity.worker,
            settings=self._settings.leases,
            start_runner=lambda lease: self._runner(setup, lease),
            retention=self._retentions[setup.name],
            telemetry=self._telemetry,
            rng=rng,
        )

    async def run(self) -> None:
        """Return after `drain`."""
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(link.run()) for setup in self._sources for link in setup.links]
            background += [group.create_task(held.run()) for held in self._held.values()]
            background.append(group.create_task(self._publish_gauges()))
            background += [
                group.create_task(setup.queue.run(self._holds_any(setup.name)))
                for setup in self._sources
                if setup.queue is not None
            ]
            keepers = [group.create_task(keeper.run()) for keeper in self._keepers.values()]
            await asyncio.wait(keepers)
            for task in background:
                task.cancel()

    def _holds_any(self, source: SourceName) -> Callable[[], bool]:
        return lambda: bool(self._keepers[source].held)

    async def drain(self) -> None:
        """Hand every shard back gracefully; `run` returns then."""
        self._is_draining = True
        await asyncio.gather(*[keeper.drain() for keeper in self._keepers.values()])

    # --- one shard -------------------------------------------------------------------------------------------------

    def _runner(self, setup: SourceSetup, lease: Lease) -> LeasedShardRunner:
        keeper = self._keepers[setup.name]
        preparer = Preparer(
            birthplace=setup.birthplace(self._identity.here, lease),
            event_format=setup.event_format,
            known_regions=self._identity.regions,
            generation_at=self._identity.routes.generation_at,
            keys=self._identity.keys,
            clock=self._clock,
            is_home=setup.is_home,
            replay=setup.replay_id,
        )
        labels: dict[str, str] = {"source": setup.name}
        source: Source = OneIncarnation(setup.source, lease.incarnation)
        continued = self._continued(setup, lease, source)
        if (former := self._runners.get((setup.name, lease.shard))) is not None:
            former.close()
        memory = self._memory.window()
        phase = next(self._read_phases) * SPREAD % 1
        unpacked = UnpackedSource(continued or source)
        log = ShardLog(unpacked, lease.shard, setup.log, preparer.prepare, self._telemetry, labels, memory, phase)

        async def make_channel(link: Link) -> Channel:
            return await self._channel(setup, lease, link, log, preparer, continued)

        runner = LeasedShardRunner(
            shard=lease.shard,
            log=log,
            links=setup.links,
            make_channel=make_channel,
            parents_done=lambda link: keeper.parents_done(lease, link),
            durable=lease.checkpoints,
            settings=self._settings.runner,
        )
        self._runners[(setup.name, lease.shard)] = runner
        return runner

    def _continued(self, setup: SourceSetup, lease: Lease, source: Source) -> ContinuedSource | None:
        if setup.lake is None:
            return None
        into_lake = LinkName(f"{setup.name}:{LAKE}")

        async def archived_from() -> int | None:
            if self._keepers[setup.name].has_finished_parent(lease, into_lake):
                return 0
            start = await self._link_start(setup, into_lake)
            return start.ms if isinstance(start, AtTimestamp) else None

        return ContinuedSource(
            source,
            ShardInLake(setup.lake, lease.incarnation, lease.shard, self._clock.now_ms),
            self._readings[setup.name],
            archived=lambda: position_of(into_lake, lease, self._runners.get((lease.source, lease.shard))),
            archived_from=archived_from,
            retention=self._retentions[setup.name],
            clock=self._clock,
        )

    async def _begin(self, setup: SourceSetup, lease: Lease, link: LinkName) -> Checkpoint:
        """Where the link begins on the shard."""
        if (stored := lease.checkpoints.get(link)) is None:
            for into_lake in [each.name for each in setup.links if each.settings.is_lake]:
                await self._link_start(setup, into_lake)  # First: it is to have all that is owed to who begins with it.
            stored = setup.first(await self._link_start(setup, link))
        retention_ms = self._retentions[setup.name].ms
        if setup.lake is None or retention_ms is None:
            return stored
        is_child, now_ms = self._keepers[setup.name].has_finished_parent(lease, link), self._clock.now_ms()
        return owed(stored, retention_ms=retention_ms, is_child=is_child, now_ms=now_ms)

    async def _channel(
        self,
        setup: SourceSetup,
        lease: Lease,
        link: Link,
        log: ShardLog,
        preparer: Preparer,
        continued: ContinuedSource | None,
    ) -> Channel:
        here, held = self._identity.here, self._held[link.name]
        recovery = Recovery(link, here, sender_and_origin(setup.event_format))
        scope = setup.claims_of(link.name, lease)
        claiming = Unclaimed if link.settings.is_lake else Claiming
        return Channel(
            link=link,
            shard=lease.shard,
            log=log,
            losses=Losses(
                link=link,
                shard=lease.shard,
                source=OneIncarnation(setup.source, lease.incarnation),
                log=log,
                start=lambda: self._link_start(setup, link.name),
                retention=self._retentions[setup.name],
                clock=self._clock,
                continued=continued,
            ),
            durable=await self._begin(setup, lease, link.name),
            claiming=claiming(self._claims, scope, lease.epoch, link, self._settings.on_loss),
            recovery=recovery,
            admission=self._gate(setup, link, preparer),
            make_durable=lambda: self._keepers[setup.name].checkpoint_now(lease.shard),
            may_send=lambda: self._keepers[setup.name].surely_holds(lease),
            account=self._memory.queue(link.name),
            held=held,
            queue=setup.queue,
        )

    def _gate(self, setup: SourceSetup, link: Link, preparer: Preparer) -> Gate:
        held = self._held[link.name]
        if link.settings.is_lake:
            return Archiving(link, preparer, self._quarantine, held, self._clock)
        router = HomeRouter() if setup.is_home else Router(self._identity.routes, self._identity.here, link.peer)
        return Admission(link, router, preparer, self._quarantine, held, self._clock)

    async def _link_start(self, setup: SourceSetup, link: LinkName) -> Position:
        """The durable start of a link, the same for all shards and workers of this region.

        That of a lake is a time, which tells what it can't have.
        """
        now_ms, retention_ms = self._clock.now_ms(), self._retentions[setup.name].ms
        proposed = setup.start(now_ms)
        if proposed == TrimHorizon() and retention_ms and link == f"{setup.name}:{LAKE}":
            proposed = AtTimestamp(now_ms - retention_ms - CLOCKS_MS)
        while True:
            try:
                return await self._leases.link_start(setup.name, link, proposed)
            except TransientError as exc:
                logger.warning("lease_store.unavailable", link=link, error=str(exc))
                await asyncio.sleep(STORE_RETRY_S)

    def has_finished(self, source: SourceName) -> bool:
        """Whether all links have done every shard of the source, by the rows as they were last read."""
        return self._keepers[source].has_finished

    def memory_used(self) -> int:
        """Bytes of events that are held now, every copy counted."""
        windows = sum(runner.log.window.size_bytes for runner in self._runners.values())
        channels = [channel for runner in self._runners.values() for channel in runner.channels.values()]
        queues = sum(channel.open_bytes + channel.held_bytes for channel in channels)
        return (windows + queues) * COPIES

    # --- what is seen ----------------------------------------------------------------------------------------------

    def ready(self) -> list[str]:
        """Reasons why this worker can't do its own part; a peer's trouble is none."""
        reasons = ["draining"] if self._is_draining else []
        if not self._quarantine.condition.is_up:
            reasons.append(f"quarantine: {self._quarantine.condition.error}")
        if not self._claims.condition.is_up and self._settings.on_loss == "pause":
            reasons.append(f"claim store: {self._claims.condition.error}")
        return reasons + [reason for keeper in self._keepers.values() for reason in keeper.unready()]

    def status(self) -> dict[str, object]:
        return {
            "region": self._identity.here,
            "worker": self._identity.worker,
            "generation": self._identity.routes.generation_at(self._clock.now_ms()),
            "uptime_ms": self._clock.now_ms() - self._started_ms,
            "ready": not self.ready(),
            "not_ready": self.ready(),
            "memory_bytes": {"used": self.memory_used(), "limit": self._settings.memory_bytes},
            "claim_store": {"on_loss": self._settings.on_loss} | self._claims.condition.status(),
            "quarantine": self._quarantine.condition.status(),
            "leases": sum(len(keeper.held) for keeper in self._keepers.values()),
            "links": {link.name: self._link_status(link) for setup in self._sources for link in setup.links},
        }

    def _link_status(self, link: Link) -> dict[str, object]:
        now_ms = self._clock.now_ms()
        channels = self._channels_of(link)
        doubts = [channel.doubt for channel in channels.values()]
        return {
            "peer": link.peer,
            "state": link_state(link, doubts),
            "lag_ms": _worst([channel.lag_ms(now_ms) for channel in channels.values()]),
            "last_error": link.health.last_error,
            "failing_for_s": link.condition.status()["failing_for_s"],
            "in_doubt": in_doubt(link, doubts),
            "held_keys": len(self._held[link.name]),
            "counts": dict(link.counts),
            "shards": {shard: channel.status(now_ms) for shard, channel in channels.items()},
        }

    def _channels_of(self, link: Link) -> dict[str, Channel]:
        """The link's channels on shards that are held now."""
        return {
            shard: runner.channels[link.name]
            for (source, shard), runner in self._runners.items()
            if source == link.source and shard in self._keepers[source].held and link.name in runner.channels
        }

    async def _publish_gauges(self) -> None:
        while True:
            await asyncio.sleep(self._settings.gauges_s)
            self._telemetry.gauge("claim_store_up", self._claims.condition.is_up)
            self._telemetry.gauge("quarantine_up", self._quarantine.condition.is_up)
            for setup in self._sources:
                held = self._keepers[setup.name].held
                self._forget_runners(setup.name, held)
                self._telemetry.gauge("leases_held", len(held), source=setup.name)
                lags = [self._publish_link(link) for link in setup.links]
                for link, lag_ms in zip(setup.links, lags, strict=True):
                    self._watches[link.name].note(self._retention_used(setup.name, lag_ms))
                used = self._retention_used(setup.name, longest(lags))
                self._telemetry.gauge("source_retention_used_ratio", used, source=setup.name)
                if setup.queue is not None:
                    self._publish_troubles(setup.name, setup.queue.troubles())

    def _publish_troubles(self, source: SourceName, troubles: QueueTroubles) -> None:
        self._telemetry.count("queue_kept_no_longer_total", troubles.kept_no_longer, source=source)
        self._telemetry.count("queue_last_receives_total", troubles.last_receives, source=source)
        in_flight = NO_DATA if troubles.in_flight is None else troubles.in_flight
        self._telemetry.gauge("queue_in_flight", in_flight, source=source)

    def _retention_used(self, source: SourceName, lag_ms: int | None) -> float:
        """The lag as a part of the source's retention; at 1 events are lost."""
        retention_ms = self._retentions[source].ms
        return NO_DATA if lag_ms is None or not retention_ms else lag_ms / retention_ms

    def _forget_runners(self, source: SourceName, held: Container[ShardId]) -> None:
        """Shards that are no longer ours are not spoken of."""
        for key in [key for key in self._runners if key[0] == source and key[1] not in held]:
            self._runners.pop(key).close()

    def _publish_link(self, link: Link) -> int | None:
        """The longest lag that is known of its shards: one without data must not hide it where events may be lost."""
        channels = self._channels_of(link)
        lags = [channel.lag_ms(self._clock.now_ms()) for channel in channels.values()]
        lag_ms, known_ms = _worst(lags), longest(lags)
        self._telemetry.gauge("replication_lag_ms", NO_DATA if lag_ms is None else lag_ms, link=link.name)
        self._telemetry.gauge("lane_depth", max((c.lane_depth for c in channels.values()), default=0), link=link.name)
        self._telemetry.gauge("held_keys", len(self._held[link.name]), link=link.name)
        self._telemetry.gauge("queue_bytes", sum(c.open_bytes for c in channels.values()), link=link.name)
        self._telemetry.gauge("link_up", link.condition.is_up, link=link.name)
        publish(self._telemetry, link, [channel.doubt for channel in channels.values()])
        age_ms = max((c.watermark_age_ms() for c in channels.values()), default=NO_DATA)
        self._telemetry.gauge("watermark_age_ms", age_ms, link=link.name)
        return known_ms


def _worst(lags: list[int | None]) -> int | None:
    """The largest lag; None when there is no shard or one of them has no data."""
    return None if not lags or None in lags else max(lag for lag in lags if lag is not None)
