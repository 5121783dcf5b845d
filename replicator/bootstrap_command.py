"""``replicator bootstrap``: a region gets what the lakes of the regions before it in the topology keep of a time.

A region that was away for longer than its peers' hubs keep events has lost them for good on its links. The lakes of the
regions that send to it have them, each those that it would have sent: so a replay over every link into the region, one
after the other, brings all of them, once, and what the region had already is found there and is not sent again.
"""

from collections.abc import Callable, Sequence
from functools import partial

from replicator.config import Config
from replicator.core.lake import LAKE
from replicator.core.model import LinkName, Region
from replicator.errors import ConfigError
from replicator.replay_command import Replayed, ReplayedBefore, count, replay
from replicator.worker.replay import Chosen

Way = tuple[Region, LinkName]
"""A link by the region that sends over it."""


def ways_into(config: Config, region: Region, senders: Sequence[str]) -> tuple[list[Way], list[Way]]:
    """Links into the region whose source has a lake, and those whose source has none.

    ``senders``: only links from these regions; all without any. Raises ConfigError when there is nothing to replay.
    """
    for name in (region, *senders):
        config.check_region(name)
    if region in senders:
        raise ConfigError(f"--from {region}: a region has its own events; name one that sends to it")
    ways, without = list[Way](), list[Way]()
    for sender in config.region_names:
        if sender == region or (senders and sender not in senders):
            continue
        links = config.links_of(sender)
        kept = {source for source, peer in links.values() if peer == LAKE}
        for link, (source, peer) in links.items():
            if peer == region:
                (ways if source in kept else without).append((sender, link))
    if not ways:
        raise ConfigError(f"no source with a lake is sent to {region}: there is nothing to take its events from")
    return ways, without


def strangers(config: Config, ways: Sequence[Way]) -> list[Region]:
    """Senders that would be given one Redis, of which at most one has its workers' claims there."""
    places = {sender: config.redis_in(sender).url for sender, _ in ways}
    return [sender for sender in places if list(places.values()).count(places[sender]) > 1]


async def bootstrap(
    config: Config, ways: Sequence[Way], chosen: Chosen, say: Callable[[str], None], *, events_per_s: float
) -> dict[Way, Replayed | None]:
    """What became of each link's events; None for one that was replayed to its end before. Raises ConfigError.

    Safe to repeat with the same times after it was ended: each replay goes on where it was.
    """
    done = dict[Way, Replayed | None]()
    for sender, link in ways:
        say_of = partial(_say_of, say, sender, link)
        try:
            done[sender, link] = await replay(config, sender, link, chosen, say_of, events_per_s=events_per_s)
        except ReplayedBefore:
            done[sender, link] = None
    return done


def _say_of(say: Callable[[str], None], sender: Region, link: LinkName, line: str) -> None:
    say(f"{sender} over {link}: {line}")


async def count_all(config: Config, ways: Sequence[Way], chosen: Chosen) -> dict[Way, int]:
    """How many chosen events of the lake route over each link. Reads all of them. Raises ConfigError."""
    return {(sender, link): (await count(config, sender, link, chosen)).total() for sender, link in ways}
