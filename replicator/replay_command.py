"""``replicator replay --from lake``: what the lake keeps of a time goes over a link again."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from replicator.aws.session import AwsSession
from replicator.bootstrap import Redrive, open_leases, redrive_service
from replicator.bootstrap_lake import open_lake_reader
from replicator.bootstrap_quarantine import check_quarantine, open_quarantine
from replicator.config import Config
from replicator.config_sources import KinesisSourceConfig
from replicator.core.formats import make_format
from replicator.core.lake import LAKE
from replicator.core.leasing import is_finished
from replicator.core.model import Lease, LinkName, Region, SourceName
from replicator.core.routing import FORWARD, Route, Router
from replicator.errors import ConfigError, PoisonEvent, StoreUnavailable
from replicator.redrive_command import ends, until_over
from replicator.worker.redrive import PutAway
from replicator.worker.replay import Chosen, Lake, ReplaySource, replay_name

DROPPED = "events_dropped_total/"
"""How counts begin that say why events did not go over a link, and that it is right."""
THERE = ("done_before", "duplicate")
"""Of these reasons those that say that the event is in the peer."""


class ReplayedBefore(ConfigError):
    """The same was replayed to its end before."""


class Replayed(Struct, frozen=True):
    """``chosen`` events went through the pipeline, ``earlier`` of them in another run that this one went on from.

    Of those of this run ``counts`` says what became, as in /status.

    ``poison``: what can't be sent, by reason; it is in the link's quarantine.
    """

    chosen: int
    counts: Counter[str]
    poison: Counter[str]
    earlier: int = 0

    @property
    def account(self) -> str:
        dropped = Counter({name[len(DROPPED) :]: n for name, n in self.counts.items() if name.startswith(DROPPED)})
        sent, known = self.counts["events_forwarded_total"], self.counts["in_doubt_found_total"]
        known += sum(dropped.pop(reason, 0) for reason in THERE)
        poison = f"{_listed(self.poison)} poison, put in quarantine" if self.poison else "none poison"
        now = f"{sent} sent, {known} were there, {poison}"
        if dropped:
            now += f", {dropped.total()} not for this link ({_listed(dropped)})"
        return f"{self.earlier} done in an earlier run, {now}" if self.earlier else now


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


async def count(config: Config, region: Region, link: LinkName, chosen: Chosen) -> Counter[Region]:
    """How many chosen events route over the link, by the region they were born in. Reads all. Raises ConfigError."""
    source, peer = replayable_ends(config, region, link, chosen)
    found: Counter[Region] = Counter()
    goes = routed(config, region, source, peer)
    async with open_lake_reader(config, region, source) as reader:
        try:
            async for event in Lake(reader, source, config.region_names, chosen).events():
                found[event.origin.region] += goes(event.data, event.at_ms)
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc
    return +found


def routed(config: Config, region: Region, source: SourceName, peer: Region) -> Callable[[bytes, int], bool]:
    """Tells of an event of the hub, and when it arrived there, whether it routes over a link; poison does not."""
    hub, topologies = config.sources[source], config.topologies()
    assert isinstance(hub, KinesisSourceConfig), "only hubs can be read again"
    event_format = make_format(hub.format, event_id_field=hub.event_id_field, opaque=hub.opaque)
    router = Router(topologies, region, peer)

    def goes(data: bytes, at_ms: int) -> bool:
        try:
            tag = event_format.decode(data).tag
            way = (tag.generation, tag.origin.region, tag.path) if tag and tag.path else None
            return router.decide(Route(*way or (topologies.generation_at(at_ms), region))) is FORWARD
        except PoisonEvent:
            return False

    return goes


async def replay(
    config: Config,
    region: Region,
    link: LinkName,
    chosen: Chosen,
    say: Callable[[str], None],
    *,
    events_per_s: float,
) -> Replayed:
    """Returns when every chosen event is sent, or known to be in the peer, or does not go over this link.

    Raises ConfigError.
    """
    source, peer = replayable_ends(config, region, link, chosen)
    await _check_new(config, region, link, chosen)
    async with open_lake_reader(config, region, source) as reader, open_own_quarantine(config, region) as quarantine:
        events = ReplaySource(Lake(reader, source, config.region_names, chosen), chosen)
        sent_since_ms = None if chosen.once_more else chosen.since_ms
        redrive = Redrive(
            source, peer, replay_name(link, chosen), events, quarantine, sent_since_ms, events_per_s, chosen.id
        )
        async with redrive_service(config, region, redrive) as service:
            await until_over(service, events, link, say)
            links = service.status()["links"]
    assert isinstance(links, dict)
    return Replayed(events.done_number, Counter(links[link]["counts"]), quarantine.reasons, events.earlier_number)


@asynccontextmanager
async def open_own_quarantine(config: Config, region: Region) -> AsyncIterator[PutAway]:
    """The region's quarantine as a replay uses it. Raises ConfigError."""
    check_quarantine(config, region)
    async with AwsSession() as aws, open_quarantine(config, region, aws) as quarantine:
        yield PutAway(quarantine)


def replayable_ends(config: Config, region: Region, link: LinkName, chosen: Chosen) -> tuple[SourceName, Region]:
    """Source and peer. Raises ConfigError when what is chosen can't be replayed over the link."""
    source, peer = ends(config, region, link)
    if peer == LAKE:
        raise ConfigError(f"{link} leads into the lake; a replay goes out of it, over the link to a peer")
    if chosen.until_ms > time.time() * 1000:
        raise ConfigError("--until is in the future: what is still to come is not there yet")
    return source, peer


async def rows_of(config: Config, region: Region, name: SourceName) -> Sequence[Lease]:
    """The leases of a replay, as far as it has come. Raises ConfigError."""
    async with AwsSession() as aws, open_leases(config, region, aws) as leases:
        try:
            return await leases.rows(name)
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


def replayed_before(link: LinkName) -> ReplayedBefore:
    return ReplayedBefore(f"this was replayed over {link} before, to its end; --force sends it again")


async def _check_new(config: Config, region: Region, link: LinkName, chosen: Chosen) -> None:
    """Raises ReplayedBefore when a checkpoint stands at its end."""
    if any(is_finished(row, {link}) for row in await rows_of(config, region, replay_name(link, chosen))):
        raise replayed_before(link)
