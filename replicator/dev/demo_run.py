"""One run of the demo's load: producers, disasters, and the wait until everyone has everything."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from replicator.dev.checker import Written
from replicator.dev.checker_reading import HubReader
from replicator.dev.demo_follow import Follower
from replicator.dev.demo_monitor import Monitor
from replicator.dev.demo_view import View
from replicator.dev.environment import Environment, together
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient
from replicator.dev.workload_table import TableClient

OUTAGE_AT = 0.35
CRASH_AT = 0.45
FLUSH_AT = 0.52
RETURN_AT = 0.6
"""Parts of the time of writing."""
CATCH_UP_MAX_S = 60.0
QUIET_S = 2.0
"""How long no hub may grow before the audit begins: a late duplicate would come within an in-doubt wait."""
POLL_S = 0.25
GUARD_S = 0.2


@dataclass(frozen=True, slots=True)
class Script:
    """What is to happen. ``victim`` is the region that is lost, None for no outage.

    ``table_events``: written to a table in each of the regions that are not lost, and from there told to the hub.
    """

    seconds: float
    events: int
    table_events: int
    victim: str | None
    crash_workers: bool
    flush_redis: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What happened.

    - ``run_s``: from the first write until everything stood in every hub, ``drain_s``: from the last on.
    - ``catch_up_s``: from the victim's return until what had been written before stood in every hub; None
      without an outage. Where a wait took more than ``CATCH_UP_MAX_S`` its time is None, and ``missing`` has
      the ids that had not arrived by then, by region.
    - ``to_tables``: events that were written to tables.
    - ``unknown``: writes whose reply was lost.
    - ``forwarded`` and ``possible_duplicates``: as the workers counted.
    """

    run_s: float
    catch_up_s: float | None
    drain_s: float | None
    missing: Mapping[str, Sequence[str]]
    to_tables: int
    unknown: int
    forwarded: int
    possible_duplicates: int


class Run:
    """Use as ``async with``, in a started environment."""

    def __init__(
        self,
        environment: Environment,
        script: Script,
        view: View,
        rng: random.Random,
        keys: Keys | None = None,
    ) -> None:
        self._environment = environment
        self._script = script
        self._view = view
        self._rng = rng
        self._keys = keys or Keys()
        self._ledger = Ledger()
        self._monitor = Monitor(environment)
        self._clients: list[StreamClient | TableClient] = []
        self._producers: dict[str, Producer] = {}
        self._services: list[Producer] = []
        """They write to tables."""
        self._follower: Follower
        self._lost_at: tuple[float, int] = (0.0, 0)
        """When the victim was lost, and what the others had sent each other by then."""
        self._catch_up_s: float | None = None
        self._missing: dict[str, list[str]] = {}

    @property
    def written(self) -> Sequence[Written]:
        return self._ledger.events

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._connect)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._follower.close()
        for client in self._clients:
            client.close()

    def _connect(self) -> None:
        environment, script = self._environment, self._script
        stream, regions = environment.layout.stream, list(environment.regions)
        readers = {
            region: HubReader(parts.ready.kinesis, region, stream) for region, parts in environment.regions.items()
        }
        self._follower = Follower(readers)
        for number, region in enumerate(regions):
            client = StreamClient(environment.producer_url(region), region, stream)
            count = script.events // len(regions) + (number < script.events % len(regions))
            rng = random.Random(self._rng.random())
            self._clients.append(client)
            self._producers[region] = Producer(client, region, count, self._ledger, keys=self._keys, rng=rng)
        for region in regions:
            if script.table_events and region != script.victim:
                self._services.append(self._service(region, script.table_events))

    def _service(self, region: str, count: int) -> Producer:
        url = self._environment.regions[region].ready.aws
        assert isinstance(url, str), "a region with tables serves DynamoDB"
        client = TableClient(url, region)
        self._clients.append(client)
        rng = random.Random(self._rng.random())
        return Producer(client, region, count, self._ledger, keys=self._keys, rng=rng, name=f"{region}-table")

    async def perform(self) -> Facts:
        """Raises ChildError when a process ended by itself."""
        start_s = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._monitor.run()), group.create_task(self._guard())]
                async with self._view.showing(self._monitor.rows):
                    await self._load()
                    drain_s = await self._until_everywhere(self._wanted)
                    run_s = time.monotonic() - start_s
                    await self._until_quiet()
                await self._monitor.look()
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return self._facts(run_s, drain_s)

    def _facts(self, run_s: float, drain_s: float | None) -> Facts:
        return Facts(
            run_s=run_s,
            catch_up_s=self._catch_up_s,
            drain_s=drain_s,
            missing=self._missing,
            to_tables=len(self._services) * self._script.table_events,
            unknown=self._ledger.unknown,
            forwarded=self._monitor.forwarded().total(),
            possible_duplicates=self._monitor.possible_duplicates(),
        )

    async def _guard(self) -> None:
        while True:
            self._environment.check()
            await asyncio.sleep(GUARD_S)

    # --- load and disasters --------------------------------------------------------------------------------

    async def _load(self) -> None:
        script = self._script
        services = (
            f", and {script.table_events:,} to a table in {len(self._services)} of them" if self._services else ""
        )
        self._view.say(f"writing {script.events:,} events in {script.seconds:g} s, in all regions{services}")
        await together(
            [
                *(producer.run(script.seconds) for producer in (*self._producers.values(), *self._services)),
                *(self._at(at, disaster) for at, disaster in self._disasters()),
            ]
        )

    def _disasters(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        script = self._script
        disasters: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        if script.victim is not None:
            disasters += [(OUTAGE_AT, self._lose_region), (RETURN_AT, self._return_region)]
        if script.crash_workers:
            disasters.append((CRASH_AT, self._crash_workers))
        if script.flush_redis:
            disasters.append((FLUSH_AT, self._flush_redis))
        return disasters

    async def _at(self, part: float, disaster: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(part * self._script.seconds)
        await disaster()

    async def _lose_region(self) -> None:
        victim = self._script.victim or ""
        self._view.say(f"[red]{victim} is lost[/]: AWS cut off, Valkey and workers killed")
        await self._monitor.look()  # a killed worker takes its latest counts along
        self._lost_at = time.monotonic(), self._between_others()
        self._producers[victim].pause()
        self._environment.kill_region(victim)

    async def _return_region(self) -> None:
        victim = self._script.victim or ""
        returned_s = time.monotonic()
        lost_s, before = self._lost_at
        self._view.say(
            f"[green]{victim} comes back[/] after {returned_s - lost_s:.1f} s, its Valkey empty; meanwhile "
            f"the others sent each other {self._between_others() - before:,} events"
        )
        await self._environment.revive_region(victim)
        self._producers[victim].resume()
        await self._follower.poll()
        backlog = frozenset(self._follower.originals)
        if await self._until_everywhere(lambda: backlog) is not None:
            self._catch_up_s = time.monotonic() - returned_s
            self._view.say(f"{victim} has caught up, {self._catch_up_s:.1f} s after its return")

    def _between_others(self) -> int:
        forwarded = self._monitor.forwarded()
        return sum(count for link, count in forwarded.items() if self._script.victim not in link)

    async def _crash_workers(self) -> None:
        survivors = [parts for parts in self._environment.regions.values() if parts.is_up]
        await self._monitor.look()
        workers = [self._rng.choice(parts.workers) for parts in survivors]
        self._view.say(f"[red]kill -9[/] {', '.join(worker.name for worker in workers)}")
        for worker in workers:
            worker.kill()
        await together(worker.start() for worker in workers)

    async def _flush_redis(self) -> None:
        region = next(region for region, parts in self._environment.regions.items() if parts.is_up)
        self._view.say(f"[red]FLUSHALL[/] in {region}")
        await self._environment.flush_redis(region)

    # --- until everyone has everything ---------------------------------------------------------------------

    def _wanted(self) -> AbstractSet[str]:
        acknowledged = {event.id for event in self._ledger.events if event.is_acknowledged}
        return acknowledged | self._follower.originals

    async def _until_everywhere(self, wanted: Callable[[], AbstractSet[str]]) -> float | None:
        """Seconds until every hub holds all of ``wanted``; None if it takes over ``CATCH_UP_MAX_S``."""
        start_s = time.monotonic()
        while missing := self._follower.missing(wanted()):
            if time.monotonic() - start_s > CATCH_UP_MAX_S:
                self._missing |= missing
                return None
            await asyncio.sleep(POLL_S)
            await self._follower.poll()
        return time.monotonic() - start_s

    async def _until_quiet(self) -> None:
        deadline_s = time.monotonic() + CATCH_UP_MAX_S
        records, since_s = self._follower.records, time.monotonic()
        while time.monotonic() - since_s < QUIET_S and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
            await self._follower.poll()
            if self._follower.records != records:
                records, since_s = self._follower.records, time.monotonic()
