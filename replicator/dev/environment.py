"""Several regions on one machine, with everything that can go wrong between them.

Per region: an AWS process (our Kinesis endpoint and moto), a Valkey process and worker processes. Between every
viewer and every region's Kinesis stands a TCP proxy of its own, so that a single direction can be cut. An
AWS process keeps its streams and tables in memory and is never ended while the environment lives: a lost
region is one whose proxies are cut, because AWS keeps streams and tables, and whose Valkey and workers are
killed, because those are gone. The proxies run in this process's event loop, which therefore must not block.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import aiohttp
import boto3
import msgspec
from aiobotocore.session import get_session
from botocore.config import Config
from msgspec import Struct
from redis.asyncio import Redis

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.dev.environment_config import LEASE_TABLE, Layout, config_variables, render_config
from replicator.dev.launch import aws_ready, start_aws
from replicator.dev.processes import Child, ChildError
from replicator.dev.proxy import Proxy
from replicator.dev.valkey import Valkey

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
READY_S = 60.0
STATUS_S = 2.0
POLL_S = 0.1
FOREIGN_VARIABLES = (
    "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
    "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
)  # fmt: skip
OWN_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class LinkStatus(Struct):
    """What a worker says of one of its links; ``counts`` since its start."""

    peer: str
    state: str
    lag_ms: int | None
    counts: dict[str, int]


class WorkerStatus(Struct):
    """What ``/status`` says, as far as it is used here. ``worker`` is another one after every start."""

    region: str
    worker: str
    ready: bool
    leases: int
    links: dict[str, LinkStatus]


@dataclass(slots=True)
class Worker:
    """One worker process, or the place of one that is down (``child`` is None)."""

    region: str
    index: int
    log: Path
    child: Child | None = None
    port: int = 0

    def kill(self) -> None:
        """SIGKILL; safe to repeat."""
        if self.child is not None:
            self.child.kill()
            self.child = None


@dataclass(slots=True)
class RegionParts:
    """The processes of one region. ``kinesis`` and ``aws`` lead past the proxies, for checkers."""

    region: str
    valkey: Valkey
    workers: list[Worker]
    aws_child: Child | None = None
    kinesis: str = ""
    aws: str = ""
    lease_proxy: Proxy | None = None
    is_up: bool = False


class Environment:
    """Use as ``async with``; leaving it ends every process, whatever happened."""

    def __init__(self, layout: Layout, workdir: Path) -> None:
        """Logs and the configuration file are written to ``workdir``, which must exist."""
        self.layout = layout
        self.workdir = workdir
        self.config_file = workdir / "replicator.yaml"
        self.regions = {region: self._parts(region) for region in layout.regions}
        self._proxies: dict[tuple[str, str], Proxy] = {}
        self._stack = AsyncExitStack()
        self._http: aiohttp.ClientSession | None = None

    def _parts(self, region: str) -> RegionParts:
        workers = [
            Worker(region, index, self.workdir / f"worker-{region}-{index}.log")
            for index in range(self.layout.workers)
        ]
        return RegionParts(region, Valkey(), workers)

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
        """Start everything but the workers. Raises ChildError with the log of what did not come up."""
        self.config_file.write_text(render_config(self.layout))
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=STATUS_S))
        )
        await together(self._start_region(parts) for parts in self.regions.values())
        for viewer, target in product(self.regions, repeat=2):
            proxy = Proxy(self.regions[target].kinesis)
            self._proxies[viewer, target] = await self._stack.enter_async_context(proxy)

    async def _start_region(self, parts: RegionParts) -> None:
        log = self.workdir / f"aws-{parts.region}.log"
        parts.aws_child = start_aws(parts.region, log, "--limits", f"{self.layout.rate_factor:g}")
        self._stack.callback(parts.aws_child.kill)
        self._stack.callback(parts.valkey.kill)
        await parts.valkey.start()
        ready = await parts.aws_child.ready(aws_ready, READY_S)
        assert isinstance(ready.aws, str), "moto was not switched off"
        parts.kinesis, parts.aws = ready.kinesis, ready.aws
        parts.lease_proxy = await self._stack.enter_async_context(Proxy(ready.aws))
        await self._make_hub(parts)
        parts.is_up = True

    async def _make_hub(self, parts: RegionParts) -> None:
        await asyncio.to_thread(_make_stream, parts.kinesis, parts.region, self.layout)
        session = get_session()
        async with session.create_client(
            "dynamodb", endpoint_url=parts.aws, region_name=parts.region, **CREDENTIALS
        ) as client:
            await ensure_table(client, LEASE_TABLE)

    async def stop(self) -> None:
        """End every process and proxy; safe to repeat."""
        for worker in self.workers():
            worker.kill()
        await self._stack.aclose()

    # --- workers -------------------------------------------------------------------------------------------

    def workers(self) -> list[Worker]:
        return [worker for parts in self.regions.values() for worker in parts.workers]

    async def start_workers(self, *regions: str) -> None:
        """Start all workers of these regions (of all, without any) and wait until they serve their status."""
        await together(
            self.start_worker(worker)
            for region in regions or self.regions
            for worker in self.regions[region].workers
        )

    async def start_worker(self, worker: Worker) -> None:
        """Raises ChildError with the worker's log when it does not come up."""
        if worker.child is not None:
            raise RuntimeError(f"worker {worker.index} of {worker.region} is running already")
        command = [sys.executable, "-m", "replicator", "run", "--config", str(self.config_file)]
        worker.child = Child(
            f"worker {worker.index} of {worker.region}",
            [*command, "--region", worker.region],
            worker.log,
            env=self._worker_environment(worker.region),
        )
        worker.port = await worker.child.ready(_status_port, READY_S)

    def _worker_environment(self, region: str) -> dict[str, str]:
        lease_proxy = self.regions[region].lease_proxy
        assert lease_proxy is not None, "regions are started before workers"
        kinesis = {target: self._proxies[region, target].url for target in self.regions}
        return {
            **OWN_VARIABLES,
            **config_variables(kinesis, aws=lease_proxy.url, redis=self.regions[region].valkey.url),
        }

    async def status(self, worker: Worker) -> WorkerStatus | None:
        """What the worker says of itself; None when it is down or does not answer."""
        assert self._http is not None, "the environment is started"
        if worker.child is None or not worker.port:
            return None
        try:
            async with self._http.get(f"http://127.0.0.1:{worker.port}/status") as reply:
                return msgspec.json.decode(await reply.read(), type=WorkerStatus)
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def wait_ready(self, *regions: str, deadline_s: float = READY_S) -> None:
        """Until every worker of these regions (of all, without any) says it is ready. Raises ChildError."""
        async with asyncio.timeout(deadline_s):
            for worker in [w for region in regions or self.regions for w in self.regions[region].workers]:
                while (status := await self.status(worker)) is None or not status.ready:
                    self.check()
                    await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raises ChildError with the end of its log when a process ended that nobody has killed."""
        children = [worker.child for worker in self.workers()]
        children += [parts.aws_child for parts in self.regions.values()]
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
        """The region comes back with an empty Valkey and new workers, which are started but may not be ready."""
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
        lease_proxy = self.regions[region].lease_proxy
        assert lease_proxy is not None, "regions are started before they are lost"
        return [lease_proxy, *(proxy for pair, proxy in self._proxies.items() if region in pair)]


async def together(steps: Iterable[Coroutine[None, None, None]]) -> None:
    """All at once; the first error ends the others and is raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def leave_user_account() -> None:
    """Take the user's AWS profile and proxies out of this process, so that nothing of ours can reach them."""
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(OWN_VARIABLES)


def _make_stream(url: str, region: str, layout: Layout) -> None:
    client = boto3.client(
        "kinesis", endpoint_url=url, region_name=region, config=Config(proxies={}), **CREDENTIALS
    )
    try:
        client.create_stream(StreamName=layout.stream, ShardCount=layout.shards)
        client.get_waiter("stream_exists").wait(StreamName=layout.stream, WaiterConfig={"Delay": 1})
    finally:
        client.close()


def _status_port(line: str) -> int | None:
    """The port in the log line of a worker that serves its status."""
    if '"status.listening"' not in line:
        return None
    return msgspec.json.decode(line, type=_Listening).port


class _Listening(Struct):
    port: int
