"""What must fit together over several fields: names, links, and topologies that can be proven."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from replicator.config import Config, LinkDefaults
from replicator.config_base import REGION
from replicator.config_in_doubt import in_doubt
from replicator.config_lake import lakes
from replicator.config_regions import named_regions
from replicator.config_sinks import EventBridgeSinkConfig, KinesisSinkConfig, SinkConfig
from replicator.config_sources import CdcSourceConfig, KinesisSourceConfig
from replicator.config_topology import GenerationConfig
from replicator.config_yaml import Document, Path, Problem, dotted
from replicator.core.model import Region
from replicator.core.topology import Topologies, TopologyError

HOME_FORMATS = ("json", "lambda-stream")
"""Which formats of a hub take the events of tables and queues."""


def across(document: Document, config: Config) -> Iterator[Problem]:
    """Problems that no single field shows."""
    yield from _unknown_names(document, config)
    yield from _duplicate_links(document, config)
    yield from in_doubt(document, config)
    yield from lakes(document, config)
    yield from _unknown_regions(document, config, ("sources", "sinks", "links"))
    strangers = list(_unknown_regions(document, config, ("topology",)))
    # A topology over regions that don't exist proves nothing, so the one is reported before the other.
    unproven = strangers or list(_unproven(document, config))
    yield from unproven
    if not unproven:
        topologies = config.topologies()
        yield from _idle_overrides(document, config, topologies)
        yield from _homeless(document, config)
        yield from _changes_in_hubs(document, config)
        yield from _idle_aggregation(document, config, topologies)
        yield from _beyond_sinks(document, config)
        yield from _opaque_to_buses(document, config)
        yield from _blind_filters(document, config)
        if any(topologies.hops_max(number) > 1 for number in topologies.numbers):
            yield from _relays(document, config)


def _unproven(document: Document, config: Config) -> Iterator[Problem]:
    """Generations that can't be proven or share a number."""
    numbers = {config.topology.generation}
    older: list[tuple[Path, GenerationConfig]] = [
        (("topology", "previous", n), old) for n, old in enumerate(config.topology.previous)
    ]
    for path, generation in older:
        if generation.generation in numbers:
            place = document.value_place((*path, "generation"))
            yield Problem(place, f"generation {generation.generation} is there twice; give every topology its own")
        numbers.add(generation.generation)
    yield from _without_start(document, [(("topology",), config.topology), *older])
    for path, generation in [(("topology",), config.topology), *older]:
        try:
            generation.compile(config.region_names)
        except TopologyError as exc:
            yield Problem(document.value_place(_fault(path, generation, exc)), f"topology: {exc}")


def _without_start(document: Document, generations: list[tuple[Path, GenerationConfig]]) -> Iterator[Problem]:
    """All links of a region must change to a newer topology at the same event."""
    ordered = sorted(generations, key=lambda item: item[1].generation)
    for (_, older), (path, newer) in pairwise(ordered):
        if newer.starts_ms <= older.starts_ms and newer.generation != older.generation:
            what = "is not later than that of" if newer.starts_at else "is missing; it must be later than that of"
            place = document.value_place((*path, "starts_at" if newer.starts_at else "generation"))
            yield Problem(
                place,
                f"'starts_at' of generation {newer.generation} {what} generation {older.generation}; write a time "
                "by which every worker of every region will have this file",
            )


def _fault(path: Path, generation: GenerationConfig, error: TopologyError) -> Path:
    """The link that is one too many, else the field that the topology comes from."""
    links = [(edge.source, edge.target) for edge in generation.links or []]
    if generation.kind == "links" and error.edge in links:
        return (*path, "links", len(links) - 1 - links[::-1].index(error.edge))
    field = {"hub": "hub", "chain": "order", "links": "links"}.get(generation.kind)
    return (*path, field) if field else path


def _unknown_names(document: Document, config: Config) -> Iterator[Problem]:
    for name, source in config.sources.items():
        path = ("sources", name, "sink")
        if source.sink not in config.sinks:
            yield Problem(
                document.value_place(path),
                f"{dotted(path)}: {_unknown(source.sink, 'sink', list(config.sinks))}",
            )
    for index, link in enumerate(config.links):
        if link.source not in config.sources:
            place = document.value_place(("links", index, "source"))
            yield Problem(place, _unknown(link.source, "source", list(config.sources)))


def _unknown_regions(document: Document, config: Config, parts: Collection[str]) -> Iterator[Problem]:
    """Regions that are named in these parts of the file, and that nobody runs."""
    for path, name, is_key in named_regions(document.data, ()):
        # What is no region's name at all is reported already.
        if path[0] in parts and name not in config.regions and REGION.fullmatch(name):
            place = document.key_place(path) if is_key else document.value_place(path)
            yield Problem(place, _unknown(name, "region", config.region_names))


def _unknown(name: str, kind: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {kind} '{name}'" + (
        f", did you mean '{close[0]}'?" if close else f"; there is: {', '.join(known)}"
    )


def _duplicate_links(document: Document, config: Config) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str | None], int] = {}
    for index, link in enumerate(config.links):
        key = (link.source, link.peer, link.at)
        if key in seen:
            first = document.value_place(("links", seen[key])).line
            yield Problem(
                document.value_place(("links", index)),
                f"link {link.source} -> {link.peer} has settings already on line {first}; merge the two",
            )
        seen.setdefault(key, index)


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
        if link.source not in config.sources:
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
