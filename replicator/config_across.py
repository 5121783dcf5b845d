"""What must fit together over several fields: links, sources, sinks and the topology they are in."""

from collections.abc import Iterator

from replicator.config import Config, LinkDefaults
from replicator.config_buckets import buckets
from replicator.config_in_doubt import in_doubt
from replicator.config_lake import lakes
from replicator.config_leaving import leaving
from replicator.config_quarantine import quarantine
from replicator.config_sinks import EventBridgeSinkConfig, KinesisSinkConfig, SinkConfig
from replicator.config_sources import CdcSourceConfig, KinesisSourceConfig
from replicator.config_streams import shared_streams
from replicator.config_tables import written_tables
from replicator.config_yaml import Document, Path, Problem
from replicator.core.model import Region
from replicator.core.topology import Topologies

HOME_FORMATS = ("json", "lambda-stream")
"""Which formats of a hub take the events of tables and queues."""


def across(document: Document, config: Config, *, is_proven: bool) -> Iterator[Problem]:
    """Problems that no single field shows. ``is_proven``: the topology is, so its links are known."""
    yield from in_doubt(document, config)
    yield from lakes(document, config)
    yield from buckets(document, config)
    yield from quarantine(document, config)
    if is_proven:
        topologies = config.topologies()
        yield from _idle_overrides(document, config, topologies)
        yield from shared_streams(document, config, topologies)
        yield from _homeless(document, config)
        yield from _changes_in_hubs(document, config)
        yield from _idle_aggregation(document, config, topologies)
        yield from _beyond_sinks(document, config)
        yield from _opaque_to_buses(document, config)
        yield from written_tables(document, config)
        yield from _blind_filters(document, config)
        yield from leaving(document, config, topologies)
        if any(topologies.hops_max(number) > 1 for number in topologies.numbers):
            yield from _relays(document, config)


def _idle_overrides(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """Settings for a link that no region has would be obeyed by nobody."""
    for index, link in enumerate(config.links):
        places = [Region(link.at)] if link.at else config.region_names
        if not {link.peer, *places} <= config.regions.keys() or link.source not in config.sources:
            continue
        senders = [here for here in config.region_names if link.peer in config.peers(link.source, here, topologies)]
        if not set(places) & set(senders):
            yield Problem(
                document.value_place(("links", index)),
                f"no link of {link.source} goes from {' or '.join(places)} to {link.peer} in this topology; "
                f"those that do come from: {', '.join(senders) or 'nowhere'}",
            )


def _idle_aggregation(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """Without lanes no event waits behind another one of its key, so nothing would ever be packed."""
    message = (
        "aggregate: kpl packs events that wait in the lane of their key, and ordering: none has no lanes; drop one"
    )
    if _packs_without_lanes(config.link_defaults):
        yield Problem(document.value_place(("link_defaults", "aggregate")), message)
        return
    for index, link in enumerate(config.links):
        places = [Region(link.at)] if link.at else config.region_names
        source = config.sources.get(link.source)
        if source is None or source.sink not in config.sinks:
            continue
        here = [place for place in places if link.peer in config.peers(link.source, place, topologies)]
        if any(_packs_without_lanes(config.link(link.source, place, link.peer)) for place in here):
            yield Problem(document.value_place(("links", index)), message)


def _packs_without_lanes(settings: LinkDefaults) -> bool:
    return settings.aggregate == "kpl" and settings.ordering == "none"


def _beyond_sinks(document: Document, config: Config) -> Iterator[Problem]:
    """What only a stream can: be read back, and hold packed records."""
    links: list[tuple[Path, LinkDefaults, list[str]]] = [
        (("links", n), link, [link.source]) for n, link in enumerate(config.links)
    ]
    for path, settings, sources in [(("link_defaults",), config.link_defaults, list(config.sources)), *links]:
        sinks = [config.sinks.get(config.sources[name].sink) for name in sources if name in config.sources]
        kinds = sorted({sink.kind for sink in sinks if sink is not None and not isinstance(sink, KinesisSinkConfig)})
        if not kinds:
            continue
        if "in_doubt" in settings.model_fields_set and settings.in_doubt == "verify":
            message = f"in_doubt: verify reads the sink back, which a sink of kind {kinds[0]} can't; leave it out"
            yield Problem(document.value_place((*path, "in_doubt")), message)
        if settings.aggregate == "kpl":
            message = f"aggregate: kpl makes records of Kinesis, and a sink of kind {kinds[0]} takes none; leave it out"
            yield Problem(document.value_place((*path, "aggregate")), message)


def _opaque_to_buses(document: Document, config: Config) -> Iterator[Problem]:
    """A bus takes JSON objects that say of what type they are."""
    for name, source in config.sources.items():
        if (
            isinstance(config.sinks.get(source.sink), EventBridgeSinkConfig)
            and getattr(source, "format", "") == "opaque"
        ):
            yield Problem(
                document.value_place(("sources", name, "format")),
                f"sources.{name}: a sink of kind eventbridge takes JSON events, and this source is opaque; "
                "read it as json, lambda-stream or cloudevents, or name another sink",
            )


def _thing(sink: SinkConfig) -> str:
    return "stream" if isinstance(sink, KinesisSinkConfig) else sink.kind


def _writes_stream(sink: SinkConfig, region: str, stream: str) -> bool:
    return isinstance(sink, KinesisSinkConfig) and sink.writes_in(region) == stream


def _relays(document: Document, config: Config) -> Iterator[Problem]:
    """A relay forwards what it reads, so peers must write where it reads."""
    for name, source in config.sources.items():
        for region in config.region_names:
            sink = config.sinks.get(source.sink)
            if not isinstance(source, KinesisSourceConfig) or sink is None:
                continue
            if not _writes_stream(sink, region, source.reads_in(region)):
                yield Problem(
                    document.value_place(("sources", name, "sink")),
                    f"sources.{name}: this topology relays, but in {region} its sink is {_thing(sink)} "
                    f"'{sink.writes_in(region)}' and the relay reads "
                    f"'{source.reads_in(region)}'; make them one",
                )
                break


def _homeless(document: Document, config: Config) -> Iterator[Problem]:
    """Events of a table or queue enter the hub, and leave from there only when something reads it that knows them."""
    for name, source in config.sources.items():
        sink = config.sinks.get(source.sink)
        if isinstance(source, KinesisSourceConfig) or sink is None:
            continue
        for region in filter(source.is_in, config.region_names):
            stream, place = sink.writes_in(region), document.value_place(("sources", name, "sink"))
            hubs = [hub for hub in _hubs(config) if _writes_stream(sink, region, hub.reads_in(region))]
            if not hubs:
                yield Problem(
                    place,
                    f"sources.{name}: its events go to {_thing(sink)} '{stream}' of {region}, which no source of kind "
                    "kinesis reads, so they would never leave; name the sink that writes the hub",
                )
                break
            if getattr(source, "mode", "") == "raw" and any(hub.format == "lambda-stream" for hub in hubs):
                yield Problem(
                    place,
                    f"sources.{name}: change records as they are have neither id nor type, without which the hub "
                    f"'{stream}', read as lambda-stream, takes nothing; use format json there, or another mode here",
                )
                break
            if strange := [hub.format for hub in hubs if hub.format not in HOME_FORMATS]:
                yield Problem(
                    place,
                    f"sources.{name}: its events are JSON objects with an id, and the hub '{stream}' is read as "
                    f"{strange[0]}; that works with {' or '.join(HOME_FORMATS)}",
                )
                break


def _changes_in_hubs(document: Document, config: Config) -> Iterator[Problem]:
    """A hub holds events: its own would be read as change records, and change records as events."""
    for name, source in config.sources.items():
        if not isinstance(source, CdcSourceConfig):
            continue
        for region in filter(source.is_in, config.region_names):
            stream = source.reads_in(region)
            if any(hub.reads_in(region) == stream for hub in _hubs(config)):
                yield Problem(
                    document.value_place(("sources", name, "stream")),
                    f"sources.{name}: '{stream}' of {region} is a hub, which a source of kind kinesis reads; change "
                    "records need a stream of their own",
                )
                break


def _hubs(config: Config) -> list[KinesisSourceConfig]:
    return [source for source in config.sources.values() if isinstance(source, KinesisSourceConfig)]


def _blind_filters(document: Document, config: Config) -> Iterator[Problem]:
    """Patterns match nothing in bytes of any kind."""
    opaque = [name for name, hub in config.sources.items() if getattr(hub, "format", "") == "opaque"]
    message = "include and exclude look into JSON, and sources.{} is opaque"
    for name in opaque[:1]:
        for field in ("include", "exclude"):
            if getattr(config.link_defaults, field):
                yield Problem(document.key_place(("link_defaults", field)), message.format(name))
    for index, link in enumerate(config.links):
        if link.source in opaque and (link.include or link.exclude):
            yield Problem(document.value_place(("links", index)), message.format(link.source))
