"""Whether what must be redacted, or stay, can be told in the events of the links that have such rules."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from replicator.config import Config, LinkDefaults
from replicator.config_sinks import DynamoDbSinkConfig
from replicator.config_sources import KinesisSourceConfig, SourceConfig
from replicator.config_yaml import Document, Path, Problem, dotted
from replicator.core.lake import LAKE
from replicator.core.topology import Topologies

ENVELOPES = {"cloudevents": {"specversion", "id", "source", "type"}, "lambda-stream": {"id", "type"}}
"""Members without which an event is none of its format, or another one."""


def leaving(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """Problems of `redact` and `residency`, each told once."""
    told = dict.fromkeys((*_of_links(config, topologies), *_of_regions(config)))
    for path, problem in told:
        yield Problem(document.key_place(path), f"{dotted(path)}: {problem}")


def _of_links(config: Config, topologies: Topologies) -> Iterator[tuple[Path, str]]:
    for name, source in config.sources.items():
        if source.sink not in config.sinks:
            continue  # which is told already
        for here in config.region_names:
            for peer in config.peers(name, here, topologies):
                if peer not in (here, LAKE):
                    for field, problem in _of_link(config, name, source, config.link(name, here, peer)):
                        yield (*_where(config, field, name, here, peer), field), problem


def _of_link(config: Config, name: str, source: SourceConfig, link: LinkDefaults) -> Iterator[tuple[str, str]]:
    """Field and problem."""
    if getattr(source, "format", "") == "opaque":
        for field in ("redact", "residency"):
            if getattr(link, field):
                yield field, f"sources.{name} is opaque, and in bytes of any kind nothing is found; read it as json"
        return
    if link.redact and isinstance(config.sinks[source.sink], DynamoDbSinkConfig):
        instead = "leave its links alone with 'redact: {}', or keep the attributes out of the table"
        yield "redact", f"sources.{name} fills tables that are kept equal, and what lacks something is not; {instead}"
    for path in sorted(_envelope(source) & link.redact.keys()):
        yield "redact", f"without its own '{path}' an event of sources.{name} is none, or another one; leave it"
    if "hash" in link.redact.values() and config.redact_key is None:
        yield "redact", "hash needs a secret, and there is no 'redact_key: {env: NAME}'"


def _of_regions(config: Config) -> Iterator[tuple[Path, str]]:
    """A pattern that is misspelt would let everything go."""
    blocks: list[tuple[Path, LinkDefaults]] = [(("link_defaults",), config.link_defaults)]
    blocks += [(("links", index), link) for index, link in enumerate(config.links)]
    for path, block in blocks:
        for index, each in enumerate(block.residency):
            for pattern in each.within:
                if not any(fnmatchcase(region, pattern) for region in config.region_names):
                    yield (
                        (*path, "residency", index, "within"),
                        f"'{pattern}' is none of the regions: {', '.join(config.region_names)}",
                    )


def _envelope(source: SourceConfig) -> set[str]:
    if not isinstance(source, KinesisSourceConfig):
        return set()
    return ENVELOPES.get(source.format, {source.event_id_field})


def _where(config: Config, field: str, source: str, here: str, peer: str) -> Path:
    """The block that gives a link this field."""
    found: tuple[bool, Path] = (False, ("link_defaults",))
    for index, link in enumerate(config.links):
        is_meant = (link.source, link.peer) == (source, peer) and link.at in (None, here)
        if is_meant and field in link.model_fields_set and (link.at is not None) >= found[0]:
            found = (link.at is not None, ("links", index))
    return found[1]
