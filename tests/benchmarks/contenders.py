"""Who is measured: processes that replicate a stream of their own from the home region to its peers.

Every contender has its own Valkey, and workers their own lease table, so that what one leaves behind costs no other.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal, Self

import msgspec
from aiobotocore.session import get_session
from botocore.config import Config

from replicator.adapters.dynamodb_leases import ensure_table
from replicator.dev.environment import CREDENTIALS
from replicator.dev.environment_worker import OWN_VARIABLES, WorkerStatus, status_port
from replicator.dev.processes import Child
from replicator.dev.valkey import Valkey
from tests.benchmarks.load import Shape, delete_stream, make_stream
from tests.benchmarks.processes import cpu_s
from tests.benchmarks.regions import HOME, PEERS, Regions
from tests.benchmarks.status import fetched

READY_S = 60.0
NODE_PEERS = Path(__file__).resolve().parent / "peers"
LAMBDA_BATCH = 500
LAMBDA_BYTES_MAX = 4_500_000
OTHER_SERVICES = ("dynamodb", "dynamodb_streams", "sqs", "events", "s3")

Kind = Literal["naive", "node", "aws-lambda-stream", "worker", "floor"]


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of a contender in a round."""

    events: int
    size_bytes: int = 1024
    peers: int = 1
    shards: int = 2
    tls: bool = False
    shape: Shape = "order"
    is_zipf: bool = False
    """Keys by Zipf's law in place of as many events for each."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A contender to be started. ``link``, ``limits`` and the rest are a worker's configuration.

    ``peer_url`` stands in for the endpoint of the first peer, such as a proxy.
    """

    name: str
    kind: Kind
    work: Work
    link: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, object] = field(default_factory=dict)
    is_signed: bool = False
    workers: int = 1
    renew_s: float = 15.0
    peer_url: str | None = None
    streams: Callable[[str], Mapping[str, object]] | None = None
    """A worker's sources and sinks, and whatever goes with them, by the name of its hub's stream. None: hub to hub."""
    poll_s: float | None = None
    """For the naive loop: how long it waits before each read. None: 0.2 s, and only after a read that found nothing."""


@dataclass(slots=True)
class Contender:
    """A running one. ``cpu_us`` and ``events_per_s`` collect its rounds, per event."""

    spec: Spec
    stream: str
    valkey: Valkey
    urls: dict[str, str]
    """What it is told of every region, home first."""
    children: list[Child] = field(default_factory=list)
    written: int = 0
    cpu_us: list[float] = field(default_factory=list)
    events_per_s: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def peers(self) -> list[str]:
        return list(self.urls)[1:]

    def cpu_s(self) -> float:
        return sum(cpu_s(child.pid) for child in self.children)

    def pause(self) -> None:
        for child in self.children:
            os.kill(child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        for child in self.children:
            os.kill(child.pid, signal.SIGCONT)

    def check(self) -> None:
        """Raises RuntimeError with the log of a process that has ended."""
        for child in self.children:
            if not child.is_alive:
                raise RuntimeError(f"{self.name} has ended:\n{child.tail()}")


class Stage:
    """Starts contenders and clears up after them. Use as ``async with``, once per case."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.workdir = regions.workdir
        self._contenders: list[Contender] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for contender in self._contenders:
            for child in contender.children:
                child.kill()
            contender.valkey.kill()
            for region in contender.urls:
                delete_stream(self.regions.url(region), region, contender.stream)

    async def start(self, specs: Sequence[Spec]) -> list[Contender]:
        """All of them, paused when they are ready."""
        return [await self.start_one(spec) for spec in specs]

    async def start_one(self, spec: Spec) -> Contender:
        contender = await self.prepare(spec)
        await self.launch(contender)
        contender.pause()
        return contender

    async def prepare(self, spec: Spec) -> Contender:
        """Streams, Valkey and lease table, but no process yet."""
        number = next(_numbers)
        names = [HOME, *PEERS[: spec.work.peers]]
        urls = {name: self.regions.url(name, tls=spec.work.tls) for name in names}
        if spec.peer_url is not None:
            urls[PEERS[0]] = spec.peer_url
        contender = Contender(spec, f"{spec.kind}-{number}", Valkey(), urls)
        self._contenders.append(contender)
        await contender.valkey.start()
        for name in names:
            await asyncio.to_thread(make_stream, self.regions.url(name), name, contender.stream, spec.work.shards)
        if spec.kind == "worker":
            await self._prepare_worker(contender)
        return contender

    async def launch(self, contender: Contender) -> None:
        """Start its processes; return when they serve."""
        for number in range(contender.spec.workers):
            child = self.spawn(contender, number)
            ready = status_port if contender.spec.kind == "worker" else _is_ready
            await child.ready(ready, READY_S)
        if contender.spec.kind == "worker":
            await _hold_all(contender)

    def spawn(self, contender: Contender, number: int = 0) -> Child:
        variables = {**OWN_VARIABLES, "TAG_KEY": "a secret of sixteen bytes and more"}
        if contender.spec.work.tls:
            trusted = str(self.regions.certificate.file)
            variables |= dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), trusted)
        log = self.workdir / f"{contender.stream}-{number}.log"
        child = Child(contender.name, self._command(contender), log, env=variables)
        contender.children.append(child)
        return child

    def _command(self, contender: Contender) -> list[str]:
        spec, stream, redis = contender.spec, contender.stream, contender.valkey.url
        here, *peers = contender.urls.items()
        match spec.kind:
            case "naive":
                where = [word for region, url in peers for word in ("--peer", region, url)]
                poll = [] if spec.poll_s is None else ["--poll-s", f"{spec.poll_s:g}"]
                module = [sys.executable, "-m", "tests.benchmarks.naive", "--source", *here, *where]
                return [*module, "--redis", redis, "--stream", stream, *poll]
            case "floor":
                where = [word for region, url in peers for word in ("--peer", region, url)]
                module = [sys.executable, "-m", "tests.benchmarks.floor", "--source", *here, *where]
                return [*module, "--stream", stream]
            case "node":
                where = [word for pair in peers for word in pair]
                return [_node(), str(NODE_PEERS / "loop" / "loop.mjs"), stream, redis, *here, *where]
            case "aws-lambda-stream":
                batch = min(LAMBDA_BATCH, LAMBDA_BYTES_MAX // spec.work.size_bytes)
                script = str(NODE_PEERS / "aws-lambda-stream" / "relay.mjs")
                return [_node(), script, stream, *here, *peers[0], str(batch)]
            case "worker":
                config = self._config_file(contender)
                return [sys.executable, "-m", "replicator", "run", "--config", str(config), "--region", HOME]

    def _config_file(self, contender: Contender) -> Path:
        return self.workdir / f"{contender.stream}.yaml"

    async def _prepare_worker(self, contender: Contender) -> None:
        config = worker_config(contender, aws=self.regions.aws, quarantine=self.workdir / "quarantine")
        self._config_file(contender).write_bytes(msgspec.json.encode(config))
        dynamodb = get_session().create_client(
            "dynamodb",
            endpoint_url=self.regions.aws,
            region_name=HOME,
            config=Config(proxies={}),
            **CREDENTIALS,
        )
        async with dynamodb as client:
            await ensure_table(client, f"leases-{contender.stream}")


def worker_config(contender: Contender, *, aws: str, quarantine: Path) -> dict[str, object]:
    """A worker's configuration file (JSON is YAML). Reads are as frequent as the other contenders' are.

    Leases last long, because a contender stands still while others have their rounds.
    """
    spec, stream = contender.spec, contender.stream
    config: dict[str, object] = {
        "regions": {
            region: {"endpoints": {"kinesis": url, **dict.fromkeys(OTHER_SERVICES, aws)}}
            for region, url in contender.urls.items()
        },
        "topology": {"kind": "mesh"},
        "sources": {
            "orders": {"kind": "kinesis", "stream": stream, "format": "json", "start": "trim_horizon", "sink": "hub"}
        },
        "sinks": {"hub": {"kind": "kinesis", "stream": stream}},
        "link_defaults": dict(spec.link),
        "redis": {"url": contender.valkey.url, "timeout_s": 5},
        "leases": {"table": f"leases-{stream}", "duration_s": 600, "renew_s": spec.renew_s},
        "quarantine": {"directory": str(quarantine)},
        "worker": {"http_port": 0},
        "limits": {"reads_per_s": 1000, "idle_read_s": 0.2, **spec.limits},
    }
    if spec.streams is not None:
        config |= spec.streams(stream)
    if spec.is_signed:
        config["tag_key"] = {"current": "k1", "keys": {"k1": {"env": "TAG_KEY"}}}
    return config


def has_node_peers() -> bool:
    """Whether node is here and the packages of ``peers/`` are installed (the Makefile does where it can)."""
    packages = [NODE_PEERS / name / "node_modules" for name in ("loop", "aws-lambda-stream")]
    return shutil.which("node") is not None and all(path.is_dir() for path in packages)


async def _hold_all(contender: Contender) -> None:
    """Until every shard has its reader, and all workers read equally many, give or take one."""
    shards = contender.spec.work.shards
    async with asyncio.timeout(READY_S * 3):
        while True:
            contender.check()
            leases = [(await worker_status(child)).leases for child in contender.children]
            if sum(leases) == shards and max(leases) - min(leases) <= 1:
                return
            await asyncio.sleep(0.1)


async def worker_status(child: Child) -> WorkerStatus:
    """What a worker says of itself."""
    port = await child.ready(status_port)
    return msgspec.json.decode(await asyncio.to_thread(fetched, port, "status"), type=WorkerStatus)


def _node() -> str:
    found = shutil.which("node")
    assert found is not None
    return found


def _is_ready(line: str) -> bool | None:
    return True if line == "ready" else None


_numbers = count()
