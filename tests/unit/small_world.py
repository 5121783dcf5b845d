"""Real workers on streams and stores in memory, on a virtual clock: minutes of waiting pass in no time.

One region sends to one peer. Requests to the peer may be held up on their way for as long as a test likes, while their
sender gives them up or dies.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_lake import MemoryLake
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream
from replicator.core.formats import make_format
from replicator.core.lake import LAKE
from replicator.core.leasing import LeaseSettings
from replicator.core.model import Checkpoint, LinkName, Position, Region, SourceName, TrimHorizon
from replicator.core.topology import Topologies, compile_generation, mesh
from replicator.errors import InDoubt, Refused, TransientError
from replicator.ports import Entry, Sink, SinkLimits
from replicator.worker.lake_shard import HubLake
from replicator.worker.link import Link, LinkSettings
from replicator.worker.service import Service
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

HERE, PEER = Region("us-east-1"), Region("eu-west-1")
SOURCE = SourceName("orders")
LINK = LinkName(f"{SOURCE}:{PEER}")
LEASES = LeaseSettings(duration_s=10.0, renew_s=3.0)
LIMITS = SinkLimits(500, 5 * 1024 * 1024, 1024 * 1024)
INTO_LAKE = LinkSettings(ordering="shard", in_flight_max=1, linger_s=10.0, is_lake=True, open_spans_max=1000)
TIMEOUT_S = 10.0
EPOCH_MS = 1_800_000_000_000

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is that of the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """At once: no time passes while a thread works."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as exc:  # noqa: BLE001 - it is for whoever waits
            done.set_exception(exc)
        return done

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now_s = max(self.now_s, self._scheduled[0]._when)
        super()._run_once()


def in_virtual_time(history: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(history)


class Tally:
    """Implements `ports.Telemetry`: the last value of every gauge."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}

    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.gauges[name] = value

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Network(MemorySink):
    """The way to the peer. ``held_s`` of the next requests: each is stored so long after it was sent, if at all."""

    def __init__(
        self, stream: MemoryStream, window_ms: int | None, held_s: Sequence[float], repeats_dropped_ms: int | None
    ) -> None:
        super().__init__(stream, replace(LIMITS, repeats_dropped_ms=repeats_dropped_ms), window_ms)
        self._held_s = list(held_s)
        self.sent = asyncio.Event()
        self.late = 0

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:
        if not self._held_s:
            return await super().put(entries, signed_ms=signed_ms)
        sent_ms = World.now_ms()
        arriving = asyncio.get_running_loop().create_task(self._arrive(self._held_s.pop(0), entries, signed_ms))
        self.sent.set()
        done, _ = await asyncio.wait((arriving,), timeout=TIMEOUT_S)
        if not done:
            raise InDoubt("no answer in time", sent_ms=sent_ms)
        if arriving.result() is None:
            raise TransientError("expired", code="late")
        return (None,) * len(entries)

    async def _arrive(self, held_s: float, entries: Sequence[Entry], signed_ms: int | None) -> object:
        await asyncio.sleep(held_s)
        try:
            return await super().put(entries, signed_ms=signed_ms)
        except TransientError:
            self.late += 1
            return None


class World:
    """``window_ms`` is how long the peer takes a request after its date, None for ever; ``skew_ms`` of its clock."""

    def __init__(self, *, window_ms: int | None = 300_000, skew_ms: int = 0, shards: int = 1) -> None:
        self.window_ms = window_ms
        self.source = MemoryStream(self.now_ms, shards)
        self.peer = MemoryStream(lambda: self.now_ms() + skew_ms, 2)
        self.leases = MemoryLeases()
        self.claims = MemoryClaims(self.now_ms)
        self.written = 0

    @staticmethod
    def now_ms() -> int:
        return EPOCH_MS + int(asyncio.get_running_loop().time() * 1000)

    def write(self, count: int, keys: int = 1000) -> None:
        for number in range(self.written, self.written + count):
            self.source.store(Entry(b'{"id":"e%d","n":%d}' % (number, number), f"k{number % keys}"))
        self.written += count

    def stored(self) -> Counter[int]:
        """How often the peer holds each event."""
        records = [record for shard in self.peer.list_shards() for record in self.peer.records(shard.id)]
        return Counter(json.loads(record.data)["n"] for record in records)

    def once_each(self) -> Counter[int]:
        return Counter(range(self.written))

    async def checkpoint(self) -> Checkpoint:
        [row] = await self.leases.rows(SOURCE)
        return row.checkpoints[LINK]


class Worker:
    """One of the region; `run` as a task, cancel it to kill."""

    def __init__(
        self,
        world: World,
        name: str,
        settings: LinkSettings,
        *,
        held_s: Sequence[float] = (),
        quarantine: MemoryQuarantine | None = None,
        repeats_dropped_ms: int | None = None,
        source: MemorySource | None = None,
        start: Position | None = None,
        lake: MemoryLake | None = None,
    ) -> None:
        """``lake``: the region has one, in which its links read on."""
        self._world = world
        self.network = Network(world.peer, world.window_ms, held_s, repeats_dropped_ms)
        self.tally = Tally()
        self.quarantine = quarantine or MemoryQuarantine()
        self.link = self._link(PEER, self.network, settings, name)
        links = (self.link,) if lake is None else (self.link, self._link(LAKE, lake, INTO_LAKE, name))
        hub_lake = None if lake is None else HubLake(lake, SOURCE, (HERE, PEER))
        source = source or MemorySource(world.source)
        routes = Topologies(compile_generation(1, [HERE, PEER], mesh([HERE, PEER])))
        self.service = Service(
            Identity(HERE, name, frozenset((HERE, PEER)), routes, None),
            [
                SourceSetup(
                    SOURCE, source, make_format("json"), links, lambda _: start or TrimHorizon(), LOG, lake=hub_lake
                )
            ],
            Stores(world.leases, world.claims, self.quarantine),
            ServiceSettings(LEASES, RunnerSettings(5.0, 1.0), "continue"),
            clock=world,
            telemetry=self.tally,
            rng=random.Random(name),
        )
        self.task = asyncio.get_running_loop().create_task(self.service.run())

    def _link(self, peer: Region, sink: Sink, settings: LinkSettings, name: str) -> Link:
        return Link(
            source=SOURCE,
            peer=peer,
            sink=sink,
            settings=settings,
            clock=self._world,
            telemetry=self.tally,
            rng=random.Random(name),
        )

    def status(self, link: LinkName = LINK) -> dict[str, Any]:
        links = self.service.status()["links"]
        assert isinstance(links, dict)
        status: dict[str, Any] = links[link]
        return status

    async def kill(self) -> None:
        """Without a word: nothing is released."""
        self.task.cancel()
        await asyncio.wait((self.task,))


LOG = LogSettings(window_bytes=1_000_000, records_per_read=100, reads_per_s=4.0, idle_read_s=1.0)


async def until(fact: Callable[[], bool], within_s: float = 3600.0) -> None:
    async with asyncio.timeout(within_s):
        while not fact():
            await asyncio.sleep(0.25)
