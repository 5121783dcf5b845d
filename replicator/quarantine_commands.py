"""``replicator quarantine held | release``: what ``on_poison: hold_key`` holds back, and letting it go."""

from replicator.aws.session import AwsSession
from replicator.bootstrap import open_quarantine
from replicator.config import Config, link_name
from replicator.core.model import LinkName, Region
from replicator.errors import ConfigError, StoreUnavailable


async def held(config: Config, region: Region) -> dict[LinkName, list[str]]:
    """The held keys by link of one region. Raises ConfigError, also when the quarantine does not answer."""
    async with open_quarantine(config, region, AwsSession()) as quarantine:
        try:
            return {link: list(await quarantine.held_keys(link)) for link in _links(config, region)}
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


async def release(config: Config, region: Region, link: LinkName, key: str) -> bool:
    """Whether the key was held. Workers let its events through within half a minute. Raises ConfigError."""
    if link not in _links(config, region):
        raise ConfigError(f"there is no link {link} in {region}, only {', '.join(_links(config, region))}")
    async with open_quarantine(config, region, AwsSession()) as quarantine:
        try:
            return await quarantine.release(link, key)
        except StoreUnavailable as exc:
            raise ConfigError(str(exc)) from exc


def _links(config: Config, region: Region) -> list[LinkName]:
    if region not in config.regions:
        raise ConfigError(f"there is no region {region} in the configuration, only {', '.join(config.region_names)}")
    peers = sorted(config.topologies().links_from(region))
    return [link_name(source, peer) for source in config.sources for peer in peers]
