"""One worker process of the environment, and what it says of itself."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from replicator.dev.processes import Child

READY_S = 60.0
STATUS_S = 2.0
OWN_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
FOREIGN_VARIABLES = (
    "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
)  # fmt: skip


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


class Worker:
    """The place of one worker: it can be started, killed and started again."""

    def __init__(self, region: str, index: int, config_file: Path, variables: Mapping[str, str]) -> None:
        """``variables`` of the configuration are given to the process as its environment."""
        self.region = region
        self.index = index
        self.name = f"worker {index} of {region}"
        self.log = config_file.with_name(f"worker-{region}-{index}.log")
        self.child: Child | None = None
        self._config_file = config_file
        self.variables = {**OWN_VARIABLES, **variables}
        """What its process has in its environment."""
        self._port = 0

    async def start(self) -> None:
        """Return when it serves its status. Raises ChildError with its log when it does not come up."""
        if self.child is not None:
            raise RuntimeError(f"{self.name} is running already")
        command = [sys.executable, "-m", "replicator", "run", "--config", str(self._config_file)]
        self.child = Child(
            self.name,
            [*command, "--region", self.region],
            self.log,
            env=self.variables,
        )
        self._port = await self.child.ready(status_port, READY_S)

    def kill(self) -> None:
        """SIGKILL; safe to repeat."""
        if self.child is not None:
            self.child.kill()
            self.child = None
            self._port = 0

    async def status(self, http: aiohttp.ClientSession) -> WorkerStatus | None:
        """None when the worker is down or does not answer."""
        if not self._port:
            return None
        try:
            async with http.get(f"http://127.0.0.1:{self._port}/status") as reply:
                return msgspec.json.decode(await reply.read(), type=WorkerStatus)
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def metric(self, http: aiohttp.ClientSession, name: str, **labels: str) -> float | None:
        """The value of ``replicator_<name>`` with these labels, as Prometheus would scrape it; None without one."""
        async with http.get(f"http://127.0.0.1:{self._port}/metrics") as reply:
            families = text_string_to_metric_families(await reply.text())
        return next(
            (
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == f"replicator_{name}" and labels.items() <= sample.labels.items()
            ),
            None,
        )


def leave_user_account() -> None:
    """Take the user's AWS profile and proxies out of this process, so that nothing of ours can reach them."""
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(OWN_VARIABLES)


class _Listening(Struct):
    port: int


def status_port(line: str) -> int | None:
    """The port in the log line of a worker that serves its status."""
    if '"status.listening"' not in line:
        return None
    return msgspec.json.decode(line, type=_Listening).port
