"""Several regions on one machine, with everything that can go wrong between them.

Per region: an AWS process (our Kinesis endpoint and moto), a Valkey process and worker processes. Between
every viewer and every region's Kinesis stands a TCP proxy of its own, so that a single direction can be cut.
An AWS process keeps its streams and tables in memory and is never ended while the environment lives: a lost
region is one whose proxies are cut, because AWS keeps streams and tables, and whose Valkey and workers are
killed, because those are gone. The proxies run in this process's event loop, which therefore must not block.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiobotocore.session import get_session
from botocore.config import Config
from redis.asyncio import Redis

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.dev.clients import kinesis_client
from replicator.dev.environment_config import (
    BUS,
    CDC_FORMATS,
    LEASE_TABLE,
    OUTLET_BUS,
    OUTLET_FIFO,
    OUTLET_QUEUE,
    POISON_QUEUE,
    QUEUE_SOURCES,
    STOCK,
    Layout,
    config_variables,
    lake_bucket,
    render_config,
)
from replicator.dev.environment_worker import STATUS_S, Worker, WorkerStatus
from replicator.dev.launch import Ready, aws_ready, start_aws
from replicator.dev.processes import Child, ChildError
from replicator.dev.proxy import Proxy
from replicator.dev.valkey import Valkey
from replicator.dev.workload_table import DEFINITION

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
READY_S = 60.0
POLL_S = 0.1
REPLICAS = '{"detail": {"_replicator": {"v": [{"exists": true}]}}}'
NO_REPLICAS = '{"detail": {"_replicator": {"v": [{"exists": false}]}}}'
"""Patterns of the rules of the bus that is a sink, and of the one that is a source."""


@dataclass(slots=True)
class RegionParts:
    """The processes of one region. ``ready`` has the URLs of its AWS past all proxies, for checkers."""

    region: str
    ready: Ready
    aws: Child
    valkey: Valkey
    lease_proxy: Proxy
    workers: list[Worker] = field(default_factory=list)
    is_up: bool = True


class Environment:
    """Use as ``async with``; leaving it ends every process, whatever happened.

    It starts with everything but the workers.
    """

    def __init__(self, layout: Layout, workdir: Path) -> None:
        """Logs and the configuration file are written to ``workdir``, which must exist."""
        self.layout = layout
        self.config_file = workdir / "replicator.yaml"
        self.quarantine = workdir / "quarantine"
        self.regions: dict[str, RegionParts] = {}
        self._proxies: dict[tuple[str, str], Proxy] = {}
        self._stack = AsyncExitStack()
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises ChildError with the log of what did not come up."""
        self.config_file.write_text(render_config(self.layout))
        timeout = aiohttp.ClientTimeout(total=STATUS_S)
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        started: dict[str, RegionParts] = {}
        await together(self._start_region(region, started) for region in self.layout.regions)
        self.regions = {region: started[region] for region in self.layout.regions}
        for viewer, target in product(self.regions, repeat=2):
            proxy = Proxy(self.regions[target].ready.kinesis)
            self._proxies[viewer, target] = await self._stack.enter_async_context(proxy)
        for parts in self.regions.values():
            parts.workers = self._workers_of(parts)

    async def _start_region(self, region: str, started: dict[str, RegionParts]) -> None:
        log = self.config_file.with_name(f"aws-{region}.log")
        aws = start_aws(region, log, "--limits", f"{self.layout.rate_factor:g}")
        self._stack.callback(aws.kill)
        valkey = Valkey()
        self._stack.callback(valkey.kill)
        await valkey.start()
        ready = await aws.ready(aws_ready, READY_S)
        if not isinstance(ready.aws, str):
            raise ChildError(f"{aws.name} serves no DynamoDB: it was started with --kinesis-only")
        await self._make_hub(region, ready.kinesis, ready.aws)
        lease_proxy = await self._stack.enter_async_context(Proxy(ready.aws))
        started[region] = RegionParts(region, ready, aws, valkey, lease_proxy)

    async def _make_hub(self, region: str, kinesis: str, aws: str) -> None:
        await asyncio.to_thread(_make_streams, kinesis, region, self.layout)
        async with _client("dynamodb", aws, region) as client:
            await ensure_table(client, LEASE_TABLE)
            if self.layout.table != "none":
                await client.create_table(**DEFINITION)
            if self.layout.has_stock:
                await client.create_table(**{**DEFINITION, "TableName": STOCK})
        if self.layout.queue:
            standard, fifo, behind_bus = QUEUE_SOURCES.values()
            await _make_queue(aws, region, standard)
            await _make_queue(aws, region, fifo)
            await _make_bus(aws, region, BUS, behind_bus, NO_REPLICAS)
        if self.layout.outlets:
            await _make_queue(aws, region, OUTLET_FIFO)
            await _make_queue(aws, region, OUTLET_QUEUE)
            # What replication puts on the bus is read from a queue of the bus's name.
            await _make_bus(aws, region, OUTLET_BUS, OUTLET_BUS, REPLICAS)
        if self.layout.poison_queue:
            await _make_queue(aws, region, POISON_QUEUE)
        if self.layout.lake or self.layout.claim_check:
            await _make_lake(aws, region)

    def quarantined(self) -> int:
        """Files in the quarantine of all regions."""
        return sum(path.is_file() for path in self.quarantine.rglob("*"))

    def _workers_of(self, parts: RegionParts) -> list[Worker]:
        kinesis = {target: self._proxies[parts.region, target].url for target in self.regions}
        variables = config_variables(
            kinesis,
            {target: self.regions[target].lease_proxy.url for target in self.regions},
            redis=parts.valkey.url,
            quarantine=self.quarantine / parts.region,
        )
        return [Worker(parts.region, index, self.config_file, variables) for index in range(self.layout.workers)]

    async def stop(self) -> None:
        """End every process and proxy; safe to repeat."""
        for worker in self.workers():
            worker.kill()
        await self._stack.aclose()

    # --- workers -------------------------------------------------------------------------------------------

    def workers(self, *regions: str) -> list[Worker]:
        """The workers of these regions (of all, without any), running or not."""
        chosen = [self.regions[region] for region in regions] or self.regions.values()
        return [worker for parts in chosen for worker in parts.workers]

    async def start_workers(self, *regions: str) -> None:
        """Return when all serve their status; see `wait_ready`."""
        await together(worker.start() for worker in self.workers(*regions))

    async def status(self, worker: Worker) -> WorkerStatus | None:
        """What the worker says of itself; None when it is down or does not answer."""
        return await worker.status(self._http)

    async def metric(self, worker: Worker, name: str, **labels: str) -> float | None:
        """One of the worker's metrics; see `Worker.metric`."""
        return await worker.metric(self._http, name, **labels)

    async def wait_ready(self, *regions: str, deadline_s: float = READY_S) -> None:
        """Until every worker says it is ready. Raises ChildError with the log of one that is not in time."""
        end_s = time.monotonic() + deadline_s
        for worker in self.workers(*regions):
            while (status := await self.status(worker)) is None or not status.ready:
                self.check()
                if time.monotonic() > end_s:
                    tail = "it does not run" if worker.child is None else worker.child.tail()
                    raise ChildError(f"{worker.name} was not ready within {deadline_s:g} s:\n{tail}")
                await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raises ChildError with the end of its log when a process ended that nobody has killed."""
        children = [worker.child for worker in self.workers()]
        children += [parts.aws for parts in self.regions.values()]
        for child in children:
            if child is not None and not child.is_alive:
                raise ChildError(f"{child.name} ended by itself; the end of {child.log}:\n{child.tail()}")

    # --- disasters -----------------------------------------------------------------------------------------

    def kill_region(self, region: str) -> None:
        """Cut the region off and end its Valkey and workers at once. Its streams and tables stay."""
        parts = self.regions[region]
        parts.is_up = False
        for proxy in self._proxies_of(region):
            proxy.cut()
        for worker in parts.workers:
            worker.kill()
        parts.valkey.kill()

    async def revive_region(self, region: str) -> None:
        """The region comes back with an empty Valkey and new workers, started but maybe not yet ready."""
        parts = self.regions[region]
        await parts.valkey.start()
        for proxy in self._proxies_of(region):
            proxy.heal()
        parts.is_up = True
        await self.start_workers(region)

    def cut_link(self, viewer: str, target: str) -> None:
        """Nothing of ``viewer`` reaches the Kinesis of ``target`` any more, new or under way."""
        self._proxies[viewer, target].cut()

    def heal_link(self, viewer: str, target: str) -> None:
        self._proxies[viewer, target].heal()

    async def flush_redis(self, region: str) -> None:
        """FLUSHALL."""
        async with Redis.from_url(self.regions[region].valkey.url) as client:
            await client.flushall()

    def producer_url(self, region: str) -> str:
        """The region's Kinesis as its own services see it: gone while the region is."""
        return self._proxies[region, region].url

    def _proxies_of(self, region: str) -> list[Proxy]:
        links = [proxy for pair, proxy in self._proxies.items() if region in pair]
        return [self.regions[region].lease_proxy, *links]


async def together(steps: Iterable[Coroutine[None, None, None]]) -> None:
    """All at once; the first error ends the others and is raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _client(service: str, url: str, region: str) -> AbstractAsyncContextManager[Any]:
    return get_session().create_client(  # type: ignore[no-any-return]  # aiobotocore is not typed
        service, endpoint_url=url, region_name=region, config=Config(proxies={}), **CREDENTIALS
    )


async def _make_queue(url: str, region: str, name: str) -> str:
    """Returns its ARN."""
    async with _client("sqs", url, region) as client:
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        made = await client.create_queue(QueueName=name, Attributes=attributes)
        asked = await client.get_queue_attributes(QueueUrl=made["QueueUrl"], AttributeNames=["QueueArn"])
        return str(asked["Attributes"]["QueueArn"])


async def _make_bus(url: str, region: str, name: str, queue: str, pattern: str) -> None:
    """With a rule that sends what fits the pattern to the queue, which is made too."""
    arn = await _make_queue(url, region, queue)
    async with _client("events", url, region) as client:
        await client.create_event_bus(Name=name)
        await client.put_rule(Name=name, EventBusName=name, EventPattern=pattern)
        await client.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])


async def _make_lake(url: str, region: str) -> None:
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    async with _client("s3", url, region) as client:
        await client.create_bucket(Bucket=lake_bucket(region), **place)


def _make_streams(url: str, region: str, layout: Layout) -> None:
    client = kinesis_client(url, region)
    try:
        for name in (layout.stream, *(CDC_FORMATS if layout.cdc else ())):
            client.create_stream(StreamName=name, ShardCount=layout.shards)
            client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    finally:
        client.close()
