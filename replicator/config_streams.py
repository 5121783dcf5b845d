"""Whether sources fit together where they share streams and queues: no event twice, no tag unseen, none swallowed.

The rules name the line; the walk over all places (`core.streams_graph`) proves what they leave.
"""

from collections.abc import Iterator
from itertools import combinations

from replicator.config import Config
from replicator.config_sinks import KinesisSinkConfig, SinkConfig
from replicator.config_sources import KinesisSourceConfig, SourceConfig, SqsSourceConfig
from replicator.config_yaml import Document, Path, Problem
from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE
from replicator.core.model import Region
from replicator.core.skim import RESERVED_KEY
from replicator.core.streams_graph import Flow, Place, StreamError, spread
from replicator.core.topology import Generation, Topologies

THINGS = ("stream", "queue", "table", "bus", "bucket")
"""What a source reads or a sink writes, as its field is named."""


def shared_streams(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """Sources that send or take one event twice."""
    problems = [
        *_read_twice(document, config),
        *_unseen_tags(document, config, topologies),
        *_swallowed(document, config, topologies),
    ]
    yield from problems
    if not problems:
        try:
            prove_streams(config, topologies)
        except StreamError as exc:
            yield Problem(
                document.value_place(("sources", exc.source, "sink")),
                f"sources.{exc.source}: {exc}; name another sink, or leave one of the sources out",
            )


def prove_streams(config: Config, topologies: Topologies) -> list[str]:
    """What is proven of streams and queues, for each generation. Raises StreamError."""
    flows = [flow for region in config.region_names for flow in _flows(config, region)]
    return [_proof(flows, topologies.generation(number)) for number in topologies.numbers]


def _proof(flows: list[Flow], generation: Generation) -> str:
    covered = [flow for flow in flows if flow.reads.region in generation.regions]
    starts = sorted({flow.reads for flow in covered if not flow.is_home})
    ends = {place for start in starts for place in spread(start, covered, generation.trees) if place != start}
    text = (
        f"Proven for the streams and queues of generation {generation.number}: no event comes back to where it began, "
        f"and each of {len(ends)} that links write takes it at most once."
    )
    crossing = {flow.source for flow in covered for other in covered if _feeds(other, flow)}
    if crossing:
        text += (
            f" {', '.join(sorted(crossing))} read what another source writes; "
            "there the check of every event's tag (origin and path) is what stops it, and all see the tags."
        )
    return text


def _feeds(flow: Flow, other: Flow) -> bool:
    """Whether a link of the one writes in a peer what the other, another source, reads."""
    return not flow.is_home and flow.source != other.source and other.reads in flow.writes.values()


def _flows(config: Config, region: Region) -> Iterator[Flow]:
    for name, source in config.sources.items():
        sink = config.sinks.get(source.sink)
        if sink is not None and _takes_events(source, region):
            writes = {peer: _written(sink, peer) for peer in config.region_names}
            is_home = not isinstance(source, KinesisSourceConfig)
            yield Flow(name, _read(source, region), writes, _tag(source), is_home)


def _read_twice(document: Document, config: Config) -> Iterator[Problem]:
    """Two sources that read one stream and bring its events to the peers' streams, or to one and the same place."""
    hubs = [
        (name, source, sink)
        for name, source in config.sources.items()
        if isinstance(source, KinesisSourceConfig) and (sink := config.sinks.get(source.sink)) is not None
    ]
    for (first, one, to), (second, other, into) in combinations(hubs, 2):
        are_streams = isinstance(to, KinesisSinkConfig) and isinstance(into, KinesisSinkConfig)
        same = [peer for peer in config.region_names if _written(to, peer) == _written(into, peer)]
        for region in config.region_names:
            if one.reads_in(region) == other.reads_in(region) and (are_streams or same):
                what = "both write streams of the peers" if are_streams else f"both write {_written(to, same[0]).name}"
                yield Problem(
                    document.value_place(_field("sources", second, other, region)),
                    f"sources.{second}: {_read(other, region)} is read by sources.{first} as well, and {what}: every "
                    "event would be stored twice there; leave one of the two out, or give this one a sink of "
                    + ("another kind, such as a queue" if are_streams else "its own"),
                )
                break


def _unseen_tags(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """A source that reads what another one writes in its region must see the tags, or replicas are new events to it."""
    told: set[frozenset[str]] = set()
    for name, source, sink, peers in _written_in(config, topologies):
        for reader, other in config.sources.items():
            if not isinstance(other, KinesisSourceConfig) or other.format == source.format:
                continue
            blind = [peer for peer in peers if _read(other, peer) == _written(sink, peer)]
            if blind and frozenset((name, reader)) not in told:
                told.add(frozenset((name, reader)))
                yield Problem(
                    document.value_place(("sources", reader, "format")),
                    f"sources.{reader}: reads {_written(sink, blind[0])} as {other.format}, and sources.{name} "
                    f"writes there as {source.format}: it would not see the tags and take replicas for new events; "
                    f"write 'format: {source.format}' here, 'format: {other.format}' in sources.{name}, or give one "
                    "of them a stream of its own",
                )


def _swallowed(document: Document, config: Config, topologies: Topologies) -> Iterator[Problem]:
    """A source takes replicas out of its queue like all that is in it, and drops them: no consumer would see one."""
    told: set[str] = set()
    for name, source, sink, peers in _written_in(config, topologies):
        for reader, other in config.sources.items():
            taken = [
                peer
                for peer in peers
                if isinstance(other, SqsSourceConfig)
                and other.is_in(peer)
                and _read(other, peer) == _written(sink, peer)
            ]
            if taken and source.sink not in told:
                told.add(source.sink)
                yield Problem(
                    document.value_place(_field("sinks", source.sink, sink, taken[0])),
                    f"sinks.{source.sink}: {_written(sink, taken[0])} is read by sources.{reader}, which would take "
                    f"what sources.{name} writes there, drop it as replicas and delete it before any consumer sees "
                    "it; give this sink a queue of its own",
                )


def _written_in(
    config: Config, topologies: Topologies
) -> Iterator[tuple[str, KinesisSourceConfig, SinkConfig, list[Region]]]:
    """Of each hub: its name, what its links write, and the regions where they do."""
    for name, source in config.sources.items():
        sink = config.sinks.get(source.sink)
        if sink is not None and isinstance(source, KinesisSourceConfig):
            peers = {peer for here in config.region_names for peer in topologies.links_from(here)}
            yield name, source, sink, sorted(peers)


def _tag(source: SourceConfig) -> str:
    """Where it looks for the tag; queues are read as JSON."""
    is_cloudevents = isinstance(source, KinesisSourceConfig) and source.format == "cloudevents"
    return CLOUDEVENTS_ATTRIBUTE if is_cloudevents else RESERVED_KEY


def _takes_events(source: SourceConfig, region: str) -> bool:
    """Hubs and queues do; tables, and streams of change records, hold no events that could go on from there."""
    return isinstance(source, KinesisSourceConfig) or (hasattr(source, "queue") and source.is_in(region))


def _read(source: SourceConfig, region: Region) -> Place:
    return Place(region, f"{_thing(source)} '{source.reads_in(region)}'")


def _written(sink: SinkConfig, region: Region) -> Place:
    return Place(region, f"{_thing(sink)} '{sink.writes_in(region)}'")


def _thing(entry: SourceConfig | SinkConfig) -> str:
    return next((thing for thing in THINGS if hasattr(entry, thing)), entry.kind)


def _field(section: str, name: str, entry: SourceConfig | SinkConfig, region: str) -> Path:
    """Where the name of a region's stream or queue stands."""
    thing = _thing(entry)
    return (section, name, f"{thing}s", region) if region in getattr(entry, f"{thing}s") else (section, name, thing)
