"""The effective configuration of one region, as YAML, with secrets masked."""

from urllib.parse import parse_qsl, urlencode, urlsplit

import yaml

from replicator.config import Config, RedisConfig
from replicator.core.model import Region

MASK = "***"


def effective(config: Config, region: str) -> str:
    """Everything that holds in ``region``: its own redis block, and its links with all overrides applied."""
    links = config.links_of(Region(region))
    shown = config.model_dump(mode="json", by_alias=True, exclude={"regions", "links", "link_defaults"})
    shown["redis"] = _masked(config.redis_in(region))
    document = {
        "region": region,
        "endpoints": config.regions[region].endpoints.model_dump(),
        **shown,
        "links": {name: config.link(source, region, peer).model_dump() for name, (source, peer) in links.items()},
    }
    return yaml.safe_dump(document, sort_keys=False)


def _masked(redis: RedisConfig) -> dict[str, object]:
    url = urlsplit(redis.url)
    shown = redis.model_dump(mode="json")
    if url.password:
        host = url.netloc.rpartition("@")[2]
        url = url._replace(netloc=f"{url.username or ''}:{MASK}@{host}")
    options = parse_qsl(url.query)
    if any(name == "password" for name, _ in options):  # redis-py takes it there as well
        masked = [(name, MASK if name == "password" else value) for name, value in options]
        url = url._replace(query=urlencode(masked, safe="*"))
    return {**shown, "url": url.geturl()}
