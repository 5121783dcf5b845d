"""The rig: regions with real endpoints and Valkey, contenders as processes of their own, CPU by process.

A contender is stopped (SIGSTOP) while its source is filled, then let go until every peer has everything. What is
measured is the CPU its process spent meanwhile, system time included, so neither the endpoint nor the filling counts.
"""

import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiobotocore.session import get_session
from botocore.config import Config

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.dev.environment import CREDENTIALS, Environment
from replicator.dev.environment_config import LEASE_TABLE, Layout, config_variables, render_config
from replicator.dev.environment_worker import OWN_VARIABLES, _status_port
from replicator.dev.processes import Child
from tests.benchmarks.load import make_stream, put_events, records_in

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2", "sa-east-1")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ARRIVAL_MAX_S = 300.0
POLL_S = 0.05
PEERS = Path(__file__).resolve().parent / "peers"
AFTER_S = 0.5
"""Settling and a checkpoint follow the last arrival; they belong to the work."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of every contender in a round."""

    events: int
    size_bytes: int
    peers: int
    shards: int


@dataclass(slots=True)
class Contender:
    """A process that replicates ``stream``; ``cpu_us`` collects its rounds, microseconds an event."""

    name: str
    stream: str
    child: Child
    written: int = 0
    cpu_us: list[float] = field(default_factory=list)
    events_per_s: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        return statistics.median(self.cpu_us)


class Rig:
    """One source region and its peers. Use as ``async with``."""

    def __init__(self, case: Case, workdir: Path) -> None:
        self.case = case
        self.workdir = workdir
        self.regions = REGIONS[: case.peers + 1]
        self.environment = Environment(Layout(regions=self.regions, workers=0, rate_factor=10_000.0), workdir)
        self.contenders: list[Contender] = []

    async def __aenter__(self) -> Self:
        await self.environment.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        for contender in self.contenders:
            contender.child.kill()
        await self.environment.stop()

    def url(self, region: str) -> str:
        return self.environment.regions[region].ready.kinesis

    async def _streams(self, stream: str) -> None:
        for region in self.regions:
            await asyncio.to_thread(make_stream, self.url(region), region, stream, self.case.shards)

    # --- contenders ------------------------------------------------------------------------------------------------

    async def add_naive(self) -> None:
        """`tests.benchmarks.naive`."""
        stream = "naive"
        await self._streams(stream)
        here, *peers = self.regions
        where = [word for region in peers for word in ("--peer", region, self.url(region))]
        redis = self.environment.regions[here].valkey.url
        command = [sys.executable, "-m", "tests.benchmarks.naive", "--source", here, self.url(here), *where]
        child = Child(
            stream,
            [*command, "--redis", redis, "--stream", stream],
            self.workdir / "naive.log",
            env=dict(OWN_VARIABLES),
        )
        await child.ready(lambda line: True if line == "ready" else None, 60.0)
        self.contenders.append(Contender("naive aioboto3 loop", stream, child))

    async def add_node(self) -> None:
        """``peers/loop.mjs``, when `node_modules` says that it can run."""
        stream = "node"
        await self._streams(stream)
        here, *peers = self.regions
        where = [word for region in peers for word in (region, self.url(region))]
        redis = self.environment.regions[here].valkey.url
        node = shutil.which("node")
        assert node is not None
        child = Child(
            stream,
            [node, str(PEERS / "loop.mjs"), stream, redis, here, self.url(here), *where],
            self.workdir / "node.log",
        )
        await child.ready(lambda line: True if line == "ready" else None, 60.0)
        self.contenders.append(Contender("Node AWS SDK v3 loop", stream, child))

    async def add_worker(self, name: str, **link: str) -> None:
        """A worker of ours, ``link`` into its ``link_defaults``."""
        stream = f"worker-{len(self.contenders)}"
        await self._streams(stream)
        here = self.regions[0]
        parts = self.environment.regions[here]
        layout = Layout(regions=self.regions, workers=1, stream=stream, lease_s=60.0, renew_s=15.0)
        defaults = "".join(f"  {key}: {value}\n" for key, value in link.items())
        text = render_config(layout).replace("link_defaults:\n", f"link_defaults:\n{defaults}", 1)
        config = self.workdir / f"{stream}.yaml"
        config.write_text(text.replace(LEASE_TABLE, f"leases-{stream}"))
        dynamodb = get_session().create_client(
            "dynamodb", endpoint_url=str(parts.ready.aws), region_name=here, config=Config(proxies={}), **CREDENTIALS
        )
        async with dynamodb as client:
            await ensure_table(client, f"leases-{stream}")
        variables = config_variables(
            {region: self.url(region) for region in self.regions},
            aws=str(parts.ready.aws),
            redis=parts.valkey.url,
            quarantine=self.workdir / "quarantine",
        )
        command = [sys.executable, "-m", "replicator", "run", "--config", str(config), "--region", here]
        child = Child(name, command, self.workdir / f"{stream}.log", env={**OWN_VARIABLES, **variables})
        await child.ready(_status_port, 60.0)
        self.contenders.append(Contender(name, stream, child))

    # --- measuring -------------------------------------------------------------------------------------------------

    async def rounds(self, count: int) -> Sequence[Contender]:
        """Every contender in turn, ``count`` times after one round of warming up."""
        for number in range(count + 1):
            for contender in self.contenders:
                cpu_us, events_per_s = await self._round(contender)
                if number:
                    contender.cpu_us.append(cpu_us)
                    contender.events_per_s.append(events_per_s)
        return self.contenders

    async def _round(self, contender: Contender) -> tuple[float, float]:
        here = self.regions[0]
        numbers = range(contender.written, contender.written + self.case.events)
        contender.written = numbers.stop
        pid = contender.child.pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.to_thread(put_events, self.url(here), here, contender.stream, numbers, self.case.size_bytes)
        begun_cpu_s, begun_s = process_cpu_s(pid), time.monotonic()
        os.kill(pid, signal.SIGCONT)
        await self._arrived(contender)
        took_s = time.monotonic() - begun_s
        await asyncio.sleep(AFTER_S)
        cpu_s = process_cpu_s(pid) - begun_cpu_s
        return cpu_s / self.case.events * 1e6, self.case.events / took_s

    async def _arrived(self, contender: Contender) -> None:
        async with asyncio.timeout(ARRIVAL_MAX_S):
            for region in self.regions[1:]:
                while await asyncio.to_thread(records_in, self.url(region), contender.stream) < contender.written:
                    if not contender.child.is_alive:
                        raise RuntimeError(contender.child.tail())
                    await asyncio.sleep(POLL_S)


def has_node_peers() -> bool:
    """Whether node is here and the packages of ``peers/`` are installed (the Makefile does where it can)."""
    return shutil.which("node") is not None and (PEERS / "node_modules").is_dir()


def process_cpu_s(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
