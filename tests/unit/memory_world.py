"""One worker of one region on streams in memory, in this process and in real time, for tests of the whole pipeline."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.memory_leases import MemoryLeases
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.memory_stream import MemorySink, MemorySource, MemoryStream
from replicator.core.formats import make_format
from replicator.core.leasing import LeaseSettings
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName, TrimHorizon
from replicator.core.tag import Tag, encode_tag
from replicator.core.topology import Topologies, compile_generation, mesh
from replicator.ports import Quarantine, Sink
from replicator.worker.link import Link, LinkSettings
from replicator.worker.service import Service
from replicator.worker.setup import Identity, ServiceSettings, SourceSetup, Stores
from replicator.worker.shard_log import LogSettings
from replicator.worker.shard_runner import RunnerSettings

HERE = Region("us-east-1")
PEERS = (Region("eu-west-1"), Region("ap-southeast-2"), Region("sa-east-1"))
REGIONS = (HERE, *PEERS)
SOURCE = SourceName("orders")
DEADLINE_S = 60.0


class Silent:
    """A telemetry that nobody looks at."""

    def count(self, name: str, value: int, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class World:
    """``service`` is not running yet."""

    def __init__(
        self,
        *,
        regions: Sequence[Region] = REGIONS,
        shards: int = 2,
        settings: LinkSettings | None = None,
        settings_of: Mapping[Region, LinkSettings] | None = None,
        memory_bytes: int = 64 * 1024 * 1024,
        quarantine: MemoryQuarantine | None = None,
        make_source: Callable[[MemoryStream], MemorySource] = MemorySource,
        make_sink: Callable[[MemoryStream], Sink] = MemorySink,
    ) -> None:
        now_ms = Clock().now_ms
        self.source = MemoryStream(now_ms, shards)
        self.peers = {peer: MemoryStream(now_ms, 1) for peer in regions[1:]}
        self.quarantine = quarantine or MemoryQuarantine()
        rng = random.Random(1)
        usual = settings or LinkSettings(backoff_base_s=0.01, backoff_max_s=0.1, in_doubt_wait_s=0.0)
        links = tuple(
            Link(
                source=SOURCE,
                peer=peer,
                sink=make_sink(stream),
                settings=(settings_of or {}).get(peer, usual),
                clock=Clock(),
                telemetry=Silent(),
                rng=rng,
            )
            for peer, stream in self.peers.items()
        )
        log = LogSettings(memory_bytes, reads_per_s=10_000, idle_read_s=0.001, retry_s=0.01)
        setup = SourceSetup(SOURCE, make_source(self.source), make_format("json"), links, lambda _: TrimHorizon(), log)
        self._routes = Topologies(compile_generation(1, list(regions), mesh(list(regions))))
        self._regions = frozenset(regions)
        self._memory_bytes = memory_bytes
        self._claims = MemoryClaims(now_ms)
        self.setup = setup
        self.service = self.service_of(setup, self.quarantine)

    def service_of(self, setup: SourceSetup, quarantine: Quarantine) -> Service:
        return Service(
            Identity(HERE, "w", self._regions, self._routes, None),
            [setup],
            Stores(MemoryLeases(), self._claims, quarantine),
            ServiceSettings(LeaseSettings(10.0, 1.0), RunnerSettings(1.0, 0.1), "continue", self._memory_bytes),
            clock=Clock(),
            telemetry=Silent(),
            rng=random.Random(1),
        )

    def numbers(self, peer: Region) -> list[tuple[str, int]]:
        """Key and id, for ids that are numbers, shard by shard."""
        stream = self.peers[peer]
        records = [record for shard in stream.list_shards() for record in stream.records(shard.id)]
        return [(record.partition_key, int(json.loads(record.data)["id"])) for record in records]

    def stored(self, peer: Region) -> list[dict[str, Any]]:
        stream = self.peers[peer]
        return [json.loads(record.data) for shard in stream.list_shards() for record in stream.records(shard.id)]

    def ids(self, peer: Region) -> list[str]:
        return [str(number) for _, number in self.numbers(peer)]

    def arrived(self, peer: Region) -> int:
        stream = self.peers[peer]
        return sum(len(stream.records(shard.id)) for shard in stream.list_shards())

    def shards_of(self, peer: Region) -> list[dict[str, object]]:
        """What /status says of the link's shards."""
        links: dict[str, dict[str, dict[str, dict[str, object]]]] = self.service.status()["links"]  # type: ignore[assignment] - JSON
        return list(links[f"{SOURCE}:{peer}"]["shards"].values())

    def attached(self, peer: Region) -> list[object]:
        return [shard["attached"] for shard in self.shards_of(peer)]

    def replica_from(self, region: Region) -> bytes:
        """An event that was born in another region and came here."""
        origin = Origin(region, SOURCE, "1", ShardId("shardId-000000000000"), SequenceNumber(1))
        return b'{"_replicator":' + encode_tag(Tag(1, origin, EventId("r"), (region,), 1)) + b',"id":"0"}'

    async def until(self, is_so: Callable[[], bool], look: Callable[[], None] = lambda: None) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                look()
                await asyncio.sleep(0.005)

    async def until_at_the_tip(self) -> None:
        """Until every link's watermark stands behind the last record of every shard."""
        shards = [self.source.records(shard.id) for shard in self.source.list_shards()]
        wanted = sorted(f"after:{records[-1].sequence}" for records in shards if records)
        for peer in self.peers:
            await self.until(lambda peer=peer: sorted(str(s["position"]) for s in self.shards_of(peer)) == wanted)
