"""Three local regions under load: what a drill does to them, and the verdict on what they hold.

A verdict needs a moment at which nothing is under way. So the producers pause for it, everything written so far gets
a bounded time to arrive, and no hub may have grown for a while: a late duplicate would come within an in-doubt wait.
The pause does not count as time of writing, and a disaster that finds everything written fails: without load it would
prove nothing.
"""

import asyncio
import random
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from typing import Self

from replicator.dev.checker import Hubs, Verdict, is_replica, judge
from replicator.dev.checker_reading import HubReader, read_hub
from replicator.dev.clients import kinesis_client
from replicator.dev.demo_follow import Follower
from replicator.dev.environment import Environment, RegionParts, together
from replicator.dev.environment_worker import Worker
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient
from replicator.errors import ReplicatorError

ARRIVE_MAX_S = 60.0
QUIET_S = 2.0
WRITE_MAX_S = 60.0
"""How much longer than planned the writing may take."""
POLL_S = 0.2


class DrillError(ReplicatorError):
    """The drill itself can't go on; the message says why. It says nothing about the replication."""


@dataclass(frozen=True, slots=True)
class Load:
    """``events`` in all regions together, spread over ``seconds``."""

    events: int
    seconds: float


class Scene:
    """Use as ``async with``, in a started environment. It begins with all workers ready and the load under way."""

    def __init__(self, environment: Environment, load: Load) -> None:
        self._environment = environment
        self._load = load
        self._ledger = Ledger()
        self._producers: dict[str, Producer] = {}
        self._stack = AsyncExitStack()
        self._follower: Follower
        self._writing: asyncio.Task[None]
        self._left_s = load.seconds
        self._writing_since_s = 0.0

    async def __aenter__(self) -> Self:
        await self._environment.start_workers()
        await self._environment.wait_ready()
        self._connect()
        self._begin_writing()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end_writing()
        # Reads and writes under way end while there still is somebody to answer them; later they would try again.
        await asyncio.get_running_loop().shutdown_default_executor()
        await self._stack.aclose()

    def _connect(self) -> None:
        stream, regions = self._environment.layout.stream, self._environment.regions
        self._follower = Follower(
            {name: HubReader(parts.ready.kinesis, name, stream) for name, parts in regions.items()}
        )
        self._stack.callback(self._follower.close)
        for number, name in enumerate(regions):
            client = StreamClient(self._environment.producer_url(name), name, stream)
            self._stack.callback(client.close)
            count = self._load.events // len(regions) + (number < self._load.events % len(regions))
            self._producers[name] = Producer(client, name, count, self._ledger, keys=Keys(), rng=random.Random(name))

    # --- the load ----------------------------------------------------------------------------------------------

    async def until_written(self, share: float) -> int:
        """Wait until this share of the load (0 to 1) is written; returns the number of events."""
        wanted = share * self._load.events
        end_s = time.monotonic() + self._load.seconds + WRITE_MAX_S
        while len(self._ledger.events) < wanted:
            self._environment.check()
            if self._writing.done():
                self._writing.result()
            if time.monotonic() > end_s:
                raise DrillError(f"{len(self._ledger.events)} events are written and not {wanted:g}: is a region lost?")
            await asyncio.sleep(POLL_S)
        return len(self._ledger.events)

    def _begin_writing(self) -> None:
        """Producers go on where they are, with the time that is left."""
        self._writing_since_s = time.monotonic()
        self._writing = asyncio.create_task(
            together(producer.run(self._left_s) for producer in self._producers.values())
        )
        for region, producer in self._producers.items():
            if self._environment.regions[region].is_up:
                producer.resume()

    def _pause_writing(self) -> None:
        self._left_s = max(0.0, self._left_s - (time.monotonic() - self._writing_since_s))
        for producer in self._producers.values():
            producer.pause()

    async def _end_writing(self) -> None:
        """A request under way is forgotten: call this when none is, or when nobody will ask any more."""
        self._writing.cancel()
        await asyncio.wait({self._writing})

    def _check_load(self) -> None:
        if len(self._ledger.events) >= self._load.events:
            raise DrillError(f"all {self._load.events} events are written, so there is no load: give it more seconds")

    # --- disasters ---------------------------------------------------------------------------------------------

    async def kill_worker(self, region: str, index: int) -> None:
        worker = self._worker(region, index)
        if worker.child is None:
            raise DrillError(f"{worker.name} does not run, so it can't be killed")
        self._check_load()
        worker.kill()

    async def start_worker(self, region: str, index: int) -> None:
        await self._worker(region, index).start()

    async def lose_region(self, region: str) -> None:
        if not self._parts(region).is_up:
            raise DrillError(f"{region} is lost already")
        self._check_load()
        self._producers[region].pause()
        self._environment.kill_region(region)

    async def return_region(self, region: str) -> None:
        if self._parts(region).is_up:
            raise DrillError(f"{region} is not lost, so it can't come back")
        await self._environment.revive_region(region)
        self._producers[region].resume()

    async def repeat_replica(self, region: str) -> str:
        """Store the first replica in a region's hub once more; returns the sequence number of the copy."""
        return await asyncio.to_thread(self._repeat_replica, region)

    def _repeat_replica(self, region: str) -> str:
        url, stream = self._parts(region).ready.kinesis, self._environment.layout.stream
        stored = (stored for shard in read_hub(url, region, stream) for stored in shard)
        replica = next((one for one in stored if is_replica(one.data)), None)
        if replica is None:
            raise DrillError(f"the hub of {region} holds no replica yet")
        with closing(kinesis_client(url, region)) as client:
            reply = client.put_record(StreamName=stream, Data=replica.data, PartitionKey=replica.partition_key)
        return str(reply["SequenceNumber"])

    def _parts(self, region: str) -> RegionParts:
        if region not in self._environment.regions:
            raise DrillError(f"there is no region {region!r}; there are {', '.join(self._environment.regions)}")
        return self._environment.regions[region]

    def _worker(self, region: str, index: int) -> Worker:
        workers = self._parts(region).workers
        if not 0 <= index < len(workers):
            raise DrillError(f"{region} has no worker {index}; it has workers 0 to {len(workers) - 1}")
        return workers[index]

    # --- the verdict -------------------------------------------------------------------------------------------

    async def verdict(self) -> Verdict:
        """Judge what was written so far, after at most ``ARRIVE_MAX_S`` for all of it to arrive everywhere.

        Raises DrillError when nothing was written, and ChildError when a process ended that nobody has killed.
        """
        self._pause_writing()
        try:
            await self._settle()
            verdict = await asyncio.to_thread(lambda: judge(list(self._ledger.events), self._read_hubs()))
        finally:
            await self._end_writing()
            self._begin_writing()
        if not verdict.written:
            raise DrillError("nothing was written yet, so a verdict would prove nothing")
        return verdict

    async def _settle(self) -> None:
        """Until all has arrived and nothing moved for ``QUIET_S``; what is late after the bound is for the judge."""
        end_s = time.monotonic() + ARRIVE_MAX_S
        state, since_s = (-1, -1), time.monotonic()
        while time.monotonic() < end_s:
            self._environment.check()
            await self._follower.poll()
            before, state = state, (len(self._ledger.events), self._follower.records)
            if state != before or not self._is_everywhere():
                since_s = time.monotonic()
            elif time.monotonic() - since_s >= QUIET_S:
                return
            await asyncio.sleep(POLL_S)

    def _is_everywhere(self) -> bool:
        acknowledged = {event.id for event in self._ledger.events if event.is_acknowledged}
        # An event can stand in its hub before the reply with which it enters the ledger.
        is_known = self._follower.originals <= {event.id for event in self._ledger.events}
        return is_known and not self._follower.missing(acknowledged | self._follower.originals)

    def _read_hubs(self) -> Hubs:
        stream, regions = self._environment.layout.stream, self._environment.regions
        return {name: read_hub(parts.ready.kinesis, name, stream) for name, parts in regions.items()}
