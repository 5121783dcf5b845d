"""One drill: three local regions under load, in a thread of its own, with plain functions to hurt and to judge them.

Chaos Toolkit calls actions and probes one after the other from its own thread; the regions' proxies and producers need
an event loop that never stops. So the loop lives in a background thread and every call is handed over to it.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from replicator.dev.checker import Verdict, judge
from replicator.dev.checker_reading import HubReader
from replicator.dev.demo_follow import Follower
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.environment_worker import leave_user_account
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient

T = TypeVar("T")

CALL_S = 180.0
ARRIVE_S = 90.0
POLL_S = 0.2
WARM_UP_S = 3.0
LAST_REQUEST_S = 1.0
"""How long a request that was under way at a pause may take on loopback."""


class Drill:
    """Between `start` and `stop`; each method returns when what it does is done."""

    def __init__(self, events: int, seconds: float) -> None:
        """``events`` are written in all regions together over about ``seconds``."""
        self._events = events
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="drill", daemon=True)
        self._workdir = tempfile.TemporaryDirectory(prefix="replicator-drill-")
        self._environment = Environment(Layout(), Path(self._workdir.name))
        self._ledger = Ledger()
        self._readers: dict[str, HubReader] = {}
        self._follower = Follower(self._readers)
        self._producers: dict[str, Producer] = {}
        self._clients: list[StreamClient] = []
        self._load: asyncio.Task[None] | None = None

    def start(self) -> None:
        leave_user_account()
        self._thread.start()
        self._call(self._start())

    def stop(self) -> None:
        """End every process, whatever state the drill is in; safe to repeat."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._workdir.cleanup()

    def warm_up(self) -> None:
        """Write for a moment and pause, so that a first verdict has something to judge."""
        self._call(self._warm_up())

    def load(self) -> None:
        """Go on writing; `finish_load` waits for the end."""
        self._call(self._go_on())

    def finish_load(self) -> None:
        self._call(self._end_load())

    def kill_worker(self, region: str, index: int) -> None:
        self._call(self._kill_worker(region, index))

    def start_worker(self, region: str, index: int) -> None:
        self._call(self._environment.workers(region)[index].start())

    def lose_region(self, region: str) -> None:
        self._call(self._lose_region(region))

    def return_region(self, region: str) -> None:
        self._call(self._return_region(region))

    def put_copy(self, region: str) -> None:
        """Store the first replica in a region's hub once more: a drill of the drill."""
        hub = self._readers[region].hub()
        replica = next(s for shard in hub for s in shard if b'"_replicator"' in s.data)
        client = self._readers[region]._client  # noqa: SLF001 - past all proxies, as the reader is
        client.put_record(
            StreamName=self._environment.layout.stream, Data=replica.data, PartitionKey=replica.partition_key
        )

    def verdict(self) -> Verdict:
        """Wait until everything written so far has arrived, within a bound, and judge what every hub holds."""
        return self._call(self._verdict())

    def _call(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(CALL_S)

    # --- in the loop -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await self._environment.start()
        stream, regions = self._environment.layout.stream, self._environment.regions
        self._readers = {r: HubReader(parts.ready.kinesis, r, stream) for r, parts in regions.items()}
        self._follower = Follower(self._readers)
        for region in regions:
            client = StreamClient(self._environment.producer_url(region), region, stream)
            self._clients.append(client)
            count = self._events // len(regions)
            self._producers[region] = Producer(
                client, region, count, self._ledger, keys=Keys(), rng=random.Random(region)
            )
        await self._environment.start_workers()
        await self._environment.wait_ready()

    async def _stop(self) -> None:
        if self._load is not None:
            self._load.cancel()
            await asyncio.wait((self._load,))
        for client in (*self._clients, *self._readers.values()):
            client.close()
        await self._environment.stop()

    async def _warm_up(self) -> None:
        self._load = asyncio.create_task(self._produce())
        await asyncio.sleep(WARM_UP_S)
        for producer in self._producers.values():
            producer.pause()
        await asyncio.sleep(LAST_REQUEST_S)

    async def _go_on(self) -> None:
        for producer in self._producers.values():
            producer.resume()

    async def _produce(self) -> None:
        await asyncio.gather(*[producer.run(self._seconds) for producer in self._producers.values()])

    async def _end_load(self) -> None:
        if self._load is not None:
            await self._load

    async def _kill_worker(self, region: str, index: int) -> None:
        self._environment.workers(region)[index].kill()

    async def _lose_region(self, region: str) -> None:
        self._producers[region].pause()
        self._environment.kill_region(region)

    async def _return_region(self, region: str) -> None:
        await self._environment.revive_region(region)
        self._producers[region].resume()

    async def _verdict(self) -> Verdict:
        until_s = time.monotonic() + ARRIVE_S
        written = list(self._ledger.events)
        while True:
            await self._follower.poll()
            acknowledged = {event.id for event in written if event.is_acknowledged}
            if not self._follower.missing(self._follower.originals | acknowledged) or time.monotonic() > until_s:
                break
            self._environment.check()
            await asyncio.sleep(POLL_S)
        return judge(self._ledger.events, {region: reader.hub() for region, reader in self._readers.items()})
