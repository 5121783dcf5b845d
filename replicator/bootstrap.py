"""Composition root: from a configuration to one running worker. It names the concrete adapters."""

import asyncio
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from msgspec import Struct
from msgspec.structs import replace

from replicator.adapters.dynamodb_leases import DynamoDbLeases
from replicator.adapters.logs import configure_logs
from replicator.adapters.redis_claims import RedisClaims, connect
from replicator.adapters.status_http import status_server
from replicator.adapters.telemetry import OtelTelemetry
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.bootstrap_claim_check import claim_checked
from replicator.bootstrap_egress import egress_of
from replicator.bootstrap_lake import lake_settings, open_hub_lake, open_lake
from replicator.bootstrap_quarantine import check_quarantine, open_quarantine
from replicator.bootstrap_sinks import Paces, Writers
from replicator.bootstrap_sources import Readers
from replicator.config import Config, link_name
from replicator.config_sinks import S3SinkConfig
from replicator.config_sources import KinesisSourceConfig
from replicator.core.lake import LAKE
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Region, SourceName, TrimHorizon
from replicator.core.tag import TagKeys
from replicator.errors import ConfigError
from replicator.ports import Quarantine, Sink
from replicator.tuning import tune_process
from replicator.worker.link import Link, LinkSettings
from replicator.worker.redrive import OwnQuarantine, RedriveSource, Unskimmed
from replicator.worker.replay import ReplaySource
from replicator.worker.replay_stream import StreamReplay
from replicator.worker.service import Service
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

logger = structlog.get_logger(__name__)

CONNECTIONS_MAX = 128
"""To one address, in use at one time by all shards and links together; more wait for their turn."""
PARENTS_POLL_S = 1.0
READY_POLL_S = 0.5
QUEUE_READS_PER_S = 100.0
REDRIVEN_A_READ = 100
READS_OF_RATE = 10
"""Into so many reads a second a rate is divided, where they are small."""


class WallClock:
    """Implements `ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


async def run_worker(config: Config, region: Region) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. Raises ConfigError."""
    config.check_region(region)
    worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    configure_logs(config.worker.log_level, region=region, worker=worker)
    async with AsyncExitStack() as stack:
        telemetry = OtelTelemetry(region=region, worker=worker)
        stack.callback(telemetry.close)
        service = await _Builder(config, region, worker, telemetry, stack).service()
        port = await stack.enter_async_context(
            status_server(service, telemetry, host=config.worker.http_host, port=config.worker.http_port)
        )
        tune_process()
        logger.info("status.listening", port=port)
        await _until_signalled(service, config.worker.ready_within_s)
    logger.info("worker.stopped")


async def _until_signalled(service: Service, ready_within_s: float) -> None:
    """Run the service; the first SIGTERM or SIGINT drains it. Raises ConfigError when it never became ready in time."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run())
        asked = group.create_task(stopping.wait())
        never_ready = group.create_task(_never_ready(service, ready_within_s))
        await asyncio.wait((running, asked, never_ready), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        never_ready.cancel()
        if not running.done():
            logger.info("worker.draining")
            await service.drain()
    if not never_ready.cancelled():
        why = "; ".join(never_ready.result())
        raise ConfigError(f"the worker did not become ready within {ready_within_s:g} s of its start: {why}")


async def _never_ready(service: Service, within_s: float) -> list[str]:
    """Return the reasons when the time has passed; never, once the service was ready."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while reasons := service.ready():
        if loop.time() >= deadline_s:
            return reasons
        await asyncio.sleep(READY_POLL_S)
    await asyncio.Event().wait()
    return []


@asynccontextmanager
async def open_leases(config: Config, region: Region, aws: AwsSession) -> AsyncIterator[DynamoDbLeases]:
    """The leases of one region, for as long as the block lasts."""
    leases = config.leases
    endpoint = config.regions[region].endpoints.dynamodb
    async with aws.client("dynamodb", region, endpoint, timeout_s=leases.duration_s * 0.3) as client:
        yield DynamoDbLeases(client, leases.table)


def tag_keys(config: Config) -> TagKeys | None:
    """The keys with their secrets, None where tags are not signed. Raises ConfigError."""
    keys = config.tag_key
    if keys is None:
        return None
    try:
        return TagKeys(keys.current, {name: ref.resolve(os.environ) for name, ref in keys.keys.items()})
    except ValueError as exc:
        raise ConfigError(f"tag_key: {exc}") from exc


class Redrive(Struct, frozen=True):
    """What is redriven over the link from ``origin``'s hub (or into it) to ``peer``, or replayed.

    ``sent_since_ms`` and ``replay_id`` as in `SourceSetup`; ``events_per_s``: no more than these.
    """

    origin: SourceName
    peer: Region
    name: SourceName
    source: RedriveSource | ReplaySource | StreamReplay
    quarantine: OwnQuarantine
    sent_since_ms: int | None = None
    events_per_s: float = REDRIVEN_A_READ * QUEUE_READS_PER_S
    replay_id: str | None = None


@asynccontextmanager
async def redrive_service(config: Config, region: Region, redrive: Redrive) -> AsyncIterator[Service]:
    """A service for nothing but this, not running yet. Raises ConfigError."""
    worker = f"redrive-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    configure_logs("warning", region=region, worker=worker)
    async with AsyncExitStack() as stack:
        telemetry = OtelTelemetry(region=region, worker=worker)
        stack.callback(telemetry.close)
        yield await _Builder(config, region, worker, telemetry, stack).service(redrive)


class _Builder:
    """Makes the parts of one worker; what must be closed goes on the stack."""

    def __init__(
        self, config: Config, region: Region, worker: str, telemetry: OtelTelemetry, stack: AsyncExitStack
    ) -> None:
        self._config = config
        self._region = region
        self._worker = worker
        self._telemetry = telemetry
        self._stack = stack
        self._aws = AwsSession()
        self._paces = Paces(config.limits.read_back_interval_s)
        self._rng = random.Random()

    async def service(self, redrive: Redrive | None = None) -> Service:
        """Of all sources, or of one redrive."""
        config = self._config
        self._stack.push_async_callback(self._aws.close)
        http = await self._stack.enter_async_context(HttpPool(CONNECTIONS_MAX))
        claims = self._claims()
        self._stack.push_async_callback(claims.close)
        topologies = config.topologies()
        identity = Identity(
            here=self._region,
            worker=self._worker,
            regions=frozenset(config.region_names),
            routes=topologies,
            keys=tag_keys(config),
        )
        if redrive is None:
            sources = [
                await self._continued(await self._source(SourceName(name), peers, http))
                for name in config.sources
                if (peers := config.peers(name, self._region, topologies))
            ]
        else:
            sources = [await self._redrive(redrive, http)]
        settings = ServiceSettings(
            leases=LeaseSettings(
                config.leases.duration_s, config.leases.renew_s, read_units_per_s=config.leases.read_units_per_s
            ),
            runner=RunnerSettings(config.worker.drain_s, min(PARENTS_POLL_S, config.leases.renew_s)),
            on_loss=config.redis_in(self._region).on_loss,
            memory_bytes=config.limits.memory_bytes,
        )
        quarantine = await self._quarantine() if redrive is None else redrive.quarantine
        stores = Stores(await self._leases(), claims, quarantine)
        return Service(identity, sources, stores, settings, clock=WallClock(), telemetry=self._telemetry, rng=self._rng)

    def _claims(self) -> RedisClaims:
        redis = self._config.redis_in(self._region)
        return connect(
            redis.url,
            password=redis.password.resolve(os.environ).decode() if redis.password else None,
            is_cluster=redis.cluster,
            tls_ca_file=redis.tls_ca_file,
            timeout_s=redis.timeout_s,
            window_s=redis.window_s,
        )

    async def _leases(self) -> DynamoDbLeases:
        return await self._stack.enter_async_context(open_leases(self._config, self._region, self._aws))

    async def _quarantine(self) -> Quarantine:
        check_quarantine(self._config, self._region)
        return await self._stack.enter_async_context(open_quarantine(self._config, self._region, self._aws))

    async def _source(self, name: SourceName, peers: list[Region], http: HttpPool) -> SourceSetup:
        source, limits = self._config.sources[name], self._config.limits
        is_home = not isinstance(source, KinesisSourceConfig)
        reader = await Readers(self._config, self._region, self._aws, http).reader(source)
        is_queue = reader.queue is not None
        log = LogSettings(
            window_bytes=limits.memory_bytes,
            records_per_read=source.records_per_read,
            # Reading an empty queue waits by itself, and nobody else reads it.
            reads_per_s=QUEUE_READS_PER_S if is_queue else limits.reads_per_s,
            idle_read_s=0.0 if is_queue else limits.idle_read_s,
        )
        links_to_peers = len(set(peers) - {LAKE})
        writers = Writers(self._config, self._aws, http, self._paces, reader.event_format, links_to_peers)
        links = tuple([await self._link(name, peer, writers) for peer in peers])
        return SourceSetup(
            name,
            reader.source,
            reader.event_format,
            links,
            source.start_position,
            log,
            is_home=is_home,
            queue=reader.queue,
        )

    async def _continued(self, setup: SourceSetup) -> SourceSetup:
        """With the lake from which a live source goes on, where there is one."""
        source = self._config.sources[setup.name]
        if not isinstance(source, KinesisSourceConfig) or source.continue_from is None:
            return setup
        lake = open_hub_lake(self._config, self._region, setup.name, source.continue_from, self._aws)
        return replace(setup, lake=await self._stack.enter_async_context(lake))

    async def _redrive(self, redrive: Redrive, http: HttpPool) -> SourceSetup:
        """The source of the link once more, of which something else is read."""
        setup = await self._source(redrive.origin, [redrive.peer], http)
        setup = replace(
            setup,
            name=redrive.name,
            source=redrive.source,
            event_format=Unskimmed(setup.event_format),
            sent_since_ms=redrive.sent_since_ms,
            replay_id=redrive.replay_id,
        )
        if isinstance(redrive.source, StreamReplay):
            start, share = redrive.source.start, redrive.source.share
            a_read = share.records_per_read(setup.log.records_per_read)
            log = replace(setup.log, records_per_read=a_read, reads_per_s=share.reads_per_s)
            return replace(setup, start=lambda _: start, log=log, replays=redrive.origin)
        a_read = max(1, min(REDRIVEN_A_READ, round(redrive.events_per_s / READS_OF_RATE)))
        log = replace(setup.log, records_per_read=a_read, reads_per_s=redrive.events_per_s / a_read)
        return replace(setup, start=lambda _: TrimHorizon(), log=log, queue=redrive.source)

    async def _link(self, name: SourceName, peer: Region, writers: Writers) -> Link:
        config = self._config
        chosen, limits = config.link(name, self._region, peer), config.limits
        sink = config.sink(name, peer)
        settings = LinkSettings(
            ordering=chosen.ordering,
            aggregate=chosen.aggregate,
            in_flight_max=chosen.in_flight_max,
            in_doubt=chosen.in_doubt,
            in_doubt_beyond=chosen.in_doubt_beyond,
            in_doubt_wait_s=chosen.in_doubt_wait_s,
            request_lifetime_s=chosen.request_lifetime_s,
            signature_window_s=limits.signature_window_s,
            clock_margin_s=limits.clock_margin_s,
            believe_after_s=config.leases.duration_s,
            read_back_bytes_max=limits.read_back_bytes_max,
            is_paused=chosen.paused,
            on_poison=chosen.on_poison,
            backoff_max_s=limits.backoff_max_s,
            filters=chosen.filters,
            egress=egress_of(config, chosen, peer),
        )
        writer: Sink
        if isinstance(sink, S3SinkConfig):
            settings = lake_settings(settings, sink)
            writer = await self._stack.enter_async_context(open_lake(config, self._region, sink, name, self._aws))
        else:
            checked = claim_checked(
                config,
                sink,
                await writers.writer(sink, peer),
                link_name(name, peer),
                peer,
                aws=self._aws,
                origin_of=writers.origin_of,
                rules=chosen.egress.towards(peer),
                telemetry=self._telemetry,
            )
            writer = await self._stack.enter_async_context(checked)
        return Link(
            source=name,
            peer=peer,
            sink=writer,
            settings=settings,
            clock=WallClock(),
            telemetry=self._telemetry,
            rng=self._rng,
        )
