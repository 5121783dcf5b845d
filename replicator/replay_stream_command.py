"""``replicator replay --from stream``: what the hub's own stream keeps of a time goes over a link again."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec import Struct

from replicator.bootstrap import Redrive, WallClock, redrive_service
from replicator.bootstrap_sources import Reader, open_hub
from replicator.config import Config
from replicator.core.leasing import is_finished
from replicator.core.model import LinkName, Region, SourceName
from replicator.errors import ConfigError, TransientError
from replicator.redrive_command import until_over
from replicator.replay_command import Replayed, open_own_quarantine, replayable_ends, replayed_before, routed, rows_of
from replicator.worker.prepare import sender_and_origin
from replicator.worker.replay import Chosen
from replicator.worker.replay_stream import Share, StreamReplay, stream_replay_name
from replicator.worker.service import Service

RECORDS_COUNTED = 1000
"""In one read, where nothing is sent."""


class _Course(Struct, frozen=True):
    """Implements `redrive_command.Course`: over when the rows of all shards say so."""

    service: Service
    name: SourceName
    events: StreamReplay

    @property
    def progress(self) -> str:
        return self.events.progress

    @property
    def is_over(self) -> bool:
        return self.service.has_finished(self.name)


async def count_stream(
    config: Config, region: Region, link: LinkName, chosen: Chosen, say: Callable[[str], None], *, reads_per_s: float
) -> Counter[Region]:
    """As `replay_command.count`."""
    source, peer = replayable_ends(config, region, link, chosen)
    found: Counter[Region] = Counter()
    async with _opened(config, region, source, chosen, say, Share(math.inf, reads_per_s)) as (reader, events):
        await _say_unsure(events, say)
        look, goes = sender_and_origin(reader.event_format), routed(config, region, source, peer)
        async for record in events.events(RECORDS_COUNTED):
            known = look(record.data)
            found[known[1].region if known else region] += goes(record.data, record.arrival_ms)
    return +found


async def replay_stream(
    config: Config, region: Region, link: LinkName, chosen: Chosen, say: Callable[[str], None], share: Share
) -> Replayed:
    """As `replay_command.replay`; what is counted is this run's own. Raises ConfigError."""
    source, peer = replayable_ends(config, region, link, chosen)
    name = stream_replay_name(link, chosen)
    async with (
        _opened(config, region, source, chosen, say, share) as (_, events),
        open_own_quarantine(config, region) as quarantine,
    ):
        if not await _has_begun(config, region, link, name, events):
            await _say_unsure(events, say)
        sent_since_ms = None if chosen.once_more else chosen.since_ms
        redrive = Redrive(source, peer, name, events, quarantine, sent_since_ms, share.events_per_s, chosen.id)
        async with redrive_service(config, region, redrive) as service:
            await until_over(service, _Course(service, name, events), link, say)
            links = service.status()["links"]
    assert isinstance(links, dict)
    return Replayed(events.read_number, Counter(links[link]["counts"]), quarantine.reasons)


@asynccontextmanager
async def _opened(
    config: Config, region: Region, source: SourceName, chosen: Chosen, say: Callable[[str], None], share: Share
) -> AsyncIterator[tuple[Reader, StreamReplay]]:
    """When the time has been over for as long as clocks may differ, `LimitsConfig.clock_margin_s` at most."""
    margin_s = config.limits.clock_margin_s
    async with open_hub(config, region, source) as reader:
        if (wait_s := chosen.until_ms / 1000 + margin_s - time.time()) > 0:
            say(f"waits {wait_s:.0f} s, until all that arrived before --until is surely there")
            await asyncio.sleep(wait_s)
        events = StreamReplay(reader.source, chosen, share, margin_ms=round(margin_s * 1000), clock=WallClock())
        try:
            yield reader, events
        except TransientError as exc:
            raise ConfigError(f"the hub can't be read: {exc}") from exc


async def _has_begun(config: Config, region: Region, link: LinkName, name: SourceName, events: StreamReplay) -> bool:
    """Whether a replay was begun before that goes on now. Raises ConfigError when it can't, or came to its end."""
    rows = {row.shard: row for row in await rows_of(config, region, name)}
    incarnation = (await events.describe()).incarnation
    if any(row.incarnation != incarnation for row in rows.values()):
        raise ConfigError("the stream was made anew since this replay began; give other times, or replay from the lake")
    listed = {shard.id for shard in await events.shards()}
    if listed <= rows.keys() and all(is_finished(row, {link}) for row in rows.values()):
        raise replayed_before(link)
    return bool(rows)


async def _say_unsure(events: StreamReplay, say: Callable[[str], None]) -> None:
    if unsure := await events.check():
        say(unsure)
