"""``replicator filter``: what a link would do with the events that its hub took lately. Nothing is sent."""

import asyncio
import math
import time
from collections import Counter

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.bootstrap import WallClock, tag_keys
from replicator.bootstrap_egress import egress_of
from replicator.bootstrap_sources import Reader, Readers
from replicator.config import Config
from replicator.config_sinks import EventBridgeSinkConfig, KinesisSinkConfig, SinkConfig, SqsSinkConfig
from replicator.config_sources import KinesisSourceConfig
from replicator.core.filters import Filter
from replicator.core.lake import LAKE
from replicator.core.model import AtTimestamp, LinkName, Region, Shard
from replicator.core.routing import FORWARD, Drop, Router
from replicator.errors import ConfigError, PoisonEvent, TransientError
from replicator.worker.prepare import Birthplace, Prepared, Preparer
from replicator.worker.unpacking import UnpackedSource

RECORDS_A_READ = 1000
READ_S = 0.25
"""Between two reads of a shard, whose consumers share five a second."""
FORWARDED, REDACTED = "forwarded", "forwarded, redacted"
SHOWN_BYTES = 120


class Judged(Struct):
    """How many events had which fate: `FORWARDED`, `REDACTED`, why dropped, ``quarantine: ...``; and of each the first
    few: as they stand in the hub, and what would leave of those that are redacted.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[bytes]] = field(default_factory=dict)

    def take(self, fate: str, data: bytes, examples_max: int) -> None:
        self.counts[fate] += 1
        kept = self.examples.setdefault(fate, [])
        if len(kept) < examples_max:
            kept.append(data)


class _Trial:
    """One link of one region. Raises ConfigError when there is no such link, or its source is no hub."""

    def __init__(self, config: Config, region: Region, link: str) -> None:
        hubs = {
            name: ends
            for name, ends in config.links_of(region).items()
            if isinstance(config.sources[ends[0]], KinesisSourceConfig) and ends[1] != LAKE
        }
        name = LinkName(link)
        if name not in hubs:
            raise ConfigError(f"there is no link {link} of a hub in {region}, only {', '.join(hubs)}")
        self.source, peer = hubs[name]
        topologies = config.topologies()
        self._config, self._region, self._topologies = config, region, topologies
        self._router = Router(topologies, region, peer)
        chosen = config.link(self.source, region, peer)
        self._filter = Filter(chosen.filters)
        self._egress = egress_of(config, chosen, peer)
        self._size_max = _size_max(config.sinks[config.sources[self.source].sink])

    def preparer(self, reader: Reader, incarnation: str, shard: Shard) -> Preparer:
        return Preparer(
            birthplace=Birthplace(self._region, self.source, incarnation, shard.id),
            event_format=reader.event_format,
            known_regions=frozenset(self._config.region_names),
            generation_at=self._topologies.generation_at,
            keys=tag_keys(self._config),
            clock=WallClock(),
        )

    def fate(self, prepared: Prepared, preparer: Preparer, now_ms: int) -> tuple[str, bytes]:
        """And the bytes that show it."""
        data = prepared.record.data
        try:
            if (fate := self._kept_back(prepared, now_ms)) is not None:
                return fate, data
            assert prepared.route is not None, "only poison has none"
            leaving = data if self._egress is None else self._egress.leaving(data, prepared.route.origin)
            if isinstance(leaving, Drop):
                return leaving.reason, data
            if self._is_oversize(prepared, preparer, len(leaving) - len(data)):
                return "quarantine: oversize", data
        except PoisonEvent as exc:
            return f"quarantine: {exc.reason}", data
        return FORWARDED if leaving is data else REDACTED, leaving

    def _is_oversize(self, prepared: Prepared, preparer: Preparer, more_bytes: int) -> bool:
        """With its tag and key, and what redaction adds. Raises PoisonEvent."""
        return preparer.entry(prepared).size_bytes + more_bytes > self._size_max

    def _kept_back(self, prepared: Prepared, now_ms: int) -> str | None:
        """Why it does not go. Raises PoisonEvent."""
        if prepared.poison is not None:
            raise prepared.poison.anew()
        assert prepared.route is not None, "only poison has none"
        decision = self._router.decide(prepared.route)
        if isinstance(decision, Drop):
            return decision.reason
        assert decision is FORWARD
        record = prepared.record
        return self._filter.why_not(record.data, now_ms - record.arrival_ms)


def _size_max(sink: SinkConfig) -> float:
    """Bytes of an event with tag and key, as the worker measures it. A table takes or refuses items, not events."""
    if getattr(sink, "claim_check", None) is not None:
        return math.inf
    match sink:
        case KinesisSinkConfig():
            return sink.record_bytes_max
        case SqsSinkConfig():
            return sink.message_bytes_max
        case EventBridgeSinkConfig():
            return sink.request_bytes_max
    return math.inf


async def judged(config: Config, region: Region, link: str, *, since_s: float, examples_max: int) -> Judged:
    """Reads every shard of the link's hub from so long ago up to its tip. Raises ConfigError."""
    trial, found = _Trial(config, region, link), Judged()
    now_ms = int(time.time() * 1000)
    async with AwsSession() as aws, HttpPool(16) as http:
        reader = await Readers(config, region, aws, http).reader(config.sources[trial.source])
        try:
            incarnation = (await reader.source.describe()).incarnation
            for shard in await reader.source.shards():
                preparer = trial.preparer(reader, incarnation, shard)
                source = UnpackedSource(reader.source)
                cursor = await source.open(shard.id, AtTimestamp(now_ms - round(since_s * 1000)))
                while True:
                    page = await source.read(cursor, RECORDS_A_READ)
                    for prepared in preparer.prepare(page):
                        found.take(*trial.fate(prepared, preparer, now_ms), examples_max)
                    if page.next is None or page.behind_ms == 0:
                        break
                    cursor = page.next
                    await asyncio.sleep(READ_S)
        except TransientError as exc:
            raise ConfigError(f"the hub can't be read: {exc}") from exc
    return found


def print_judged(found: Judged, console: Console) -> None:
    """How many of which fate, and the first of each."""
    table = Table("events", "what becomes of them", "for example")
    for fate, count in found.counts.most_common():
        examples = [data[:SHOWN_BYTES].decode(errors="replace") for data in found.examples[fate]]
        table.add_row(f"{count:,}", fate, "\n".join(examples))
    console.print(table)


def judged_document(found: Judged) -> dict[str, object]:
    """As plain data."""
    return {
        "counts": dict(found.counts.most_common()),
        "examples": {fate: [data.decode(errors="replace") for data in kept] for fate, kept in found.examples.items()},
    }
