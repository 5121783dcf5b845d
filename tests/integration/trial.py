"""An environment of real processes with a load and a judge, for tests of what is done to workers, and commands."""

import asyncio
import json
import random
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from replicator.dev.checker import Verdict, judge
from replicator.dev.checker_reading import HubReader
from replicator.dev.demo_follow import Follower
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.processes import Child
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient

EAST, WEST, SOUTH = "us-east-1", "eu-west-1", "ap-southeast-2"
DEADLINE_S = 90.0
POLL_S = 0.4
KEYS = Keys(hot=3, cold=60)


class Trial:
    """An environment with running workers, a load, and the judge at the end."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.ledger = Ledger()
        self.stream = environment.layout.stream
        self.readers = {r: HubReader(p.ready.kinesis, r, self.stream) for r, p in environment.regions.items()}
        self.follower = Follower(self.readers)
        self.producers = [self.producer(region) for region in environment.regions]

    def producer(self, region: str, events: int = 500, name: str | None = None) -> Producer:
        client = StreamClient(self.environment.regions[region].ready.kinesis, region, self.stream)
        return Producer(client, region, events, self.ledger, keys=KEYS, rng=random.Random(region), name=name)

    async def load_while(self, *disasters: Callable[[], Awaitable[None]], seconds: float = 4.0) -> None:
        """500 events a region over the time, the disasters spread over it."""
        async with asyncio.TaskGroup() as group:
            for producer in self.producers:
                group.create_task(producer.run(seconds))
            for disaster in disasters:
                await asyncio.sleep(seconds / (len(disasters) + 1))
                await disaster()

    async def verdict(self) -> Verdict:
        """Wait until every hub holds everything, then judge."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await self.follower.poll()
                wanted = self.follower.originals | {e.id for e in self.ledger.events if e.is_acknowledged}
                if not self.follower.missing(wanted):
                    break
                self.environment.check()
                await asyncio.sleep(POLL_S)
        return judge(self.ledger.events, {region: reader.hub() for region, reader in self.readers.items()})

    async def counts(self, name: str, *regions: str) -> int:
        """A counter of all workers and links together."""
        total = 0
        for worker in self.environment.workers(*regions):
            status = await self.environment.status(worker)
            for link in status.links.values() if status else ():
                total += sum(value for key, value in link.counts.items() if key.split("/")[0] == name)
        return total

    def fault(self, region: str, *rules: dict[str, Any]) -> None:
        body = json.dumps(rules).encode()
        self._of_endpoint(urllib.request.Request(self._url(region, "faults"), body))

    def strikes(self, region: str) -> dict[str, int]:
        """How often each kind of fault struck."""
        struck: dict[str, int] = self._of_endpoint(urllib.request.Request(self._url(region, "stats")))["strikes"]
        return struck

    def _url(self, region: str, path: str) -> str:
        return f"{self.environment.regions[region].ready.kinesis}/_dev/{path}"

    def _of_endpoint(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request) as reply:
            return json.loads(reply.read() or b"null")

    def close(self) -> None:
        self.follower.close()


class Commands:
    """``replicator WORDS``, with what a worker of EAST has in its environment; each run writes a log of its name."""

    def __init__(self, running: Trial, workdir: Path, *words: str) -> None:
        self._argv = [sys.executable, "-m", "replicator", *words, "--config", str(running.environment.config_file)]
        self._variables = running.environment.workers(EAST)[0].variables
        self._workdir = workdir

    def start(self, name: str, *options: str) -> Child:
        return Child(name, [*self._argv, *options], self._workdir / f"{name}.log", env=self._variables)

    async def done(self, name: str, *options: str) -> tuple[int, str]:
        """Its exit code and what it said."""
        child = self.start(name, *options)
        async with asyncio.timeout(DEADLINE_S):
            code = await child.ended()
        return code, child.log.read_text()


@asynccontextmanager
async def trial(workdir: Path, **layout: Any) -> AsyncIterator[Trial]:
    async with Environment(Layout(**{"regions": (EAST, WEST), **layout}), workdir) as environment:
        await environment.start_workers()
        await environment.wait_ready()
        running = Trial(environment)
        try:
            yield running
        finally:
            running.close()
