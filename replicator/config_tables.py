"""Whether tables that are written fit the sources that tell their changes: no change told twice, none untold.

Change capture sees what replication put into a table beside what services wrote. What tells the two apart is the
writer's stamp in the item, so both ends have to look at the same attributes.
"""

from collections.abc import Iterator

from replicator.config import Config
from replicator.config_sinks import DynamoDbSinkConfig
from replicator.config_sources import CdcSourceConfig, DynamoDbSourceConfig, KinesisSourceConfig
from replicator.config_yaml import Document, Problem, dotted
from replicator.core.model import Region
from replicator.core.streams_graph import StreamError

Changes = DynamoDbSourceConfig | CdcSourceConfig


def written_tables(document: Document, config: Config) -> Iterator[Problem]:
    """Problems of sinks of kind dynamodb, and of the sources that feed them or read what they write."""
    told: set[tuple[str, str]] = set()
    for name, source in config.sources.items():
        sink = config.sinks.get(source.sink)
        if isinstance(source, KinesisSourceConfig) and isinstance(sink, DynamoDbSinkConfig):
            feeders = _feeders(config, source)
            wrong = _chosen(document, name, source, sink, feeders)
            if wrong is not None:
                yield wrong
                continue
            feeder = sink.changes_of or next(iter(feeders))
            for field, message in _misfits(feeders[feeder], source.sink, sink):
                if (feeder, field) not in told:
                    told.add((feeder, field))
                    yield _problem(document, feeder, field, message)
            yield from _readers(document, config, source.sink, sink, feeder)


def _feeders(config: Config, hub: KinesisSourceConfig) -> dict[str, Changes]:
    """The sources of change records of DynamoDB that fill the hub in some region."""
    found: dict[str, Changes] = {}
    for name, source in config.sources.items():
        sink = config.sinks.get(source.sink)
        if not isinstance(source, Changes) or getattr(source, "format", "dynamodb") != "dynamodb":
            continue
        filled = [region for region in config.region_names if source.is_in(region)]
        if sink is not None and any(
            getattr(sink, "stream", None) is not None and sink.writes_in(region) == hub.reads_in(region)
            for region in filled
        ):
            found[name] = source
    return found


def _chosen(
    document: Document,
    name: str,
    source: KinesisSourceConfig,
    sink: DynamoDbSinkConfig,
    feeders: dict[str, Changes],
) -> Problem | None:
    """Why it is not clear whose changes are applied."""
    path = ("sinks", source.sink, "changes_of")
    if sink.changes_of is not None and sink.changes_of not in feeders:
        fill = f"those that do are: {', '.join(feeders)}" if feeders else "and there is none that does"
        return Problem(
            document.value_place(path),
            f"{dotted(path)}: '{sink.changes_of}' is no source of DynamoDB's change records that fills the hub of "
            f"sources.{name}; {fill}",
        )
    if not feeders:
        return Problem(
            document.value_place(("sources", name, "sink")),
            f"sources.{name}: a table takes change records of DynamoDB, and nothing brings any into this hub; add a "
            "source of kind dynamodb, mode raw, whose sink writes it",
        )
    if sink.changes_of is None and len(feeders) > 1:
        return Problem(
            document.value_place(("sinks", source.sink)),
            f"sinks.{source.sink}: the changes of several tables are in the hub of sources.{name}; say whose are "
            f"applied: changes_of: {' or '.join(feeders)}",
        )
    return None


def _misfits(feeder: Changes, name: str, sink: DynamoDbSinkConfig) -> Iterator[tuple[str, str]]:
    """By field of the source that feeds a table, what it should be."""
    if feeder.mode != "raw":
        yield "mode", f"sinks.{name} needs change records as they are, in which no value is rewritten; write mode: raw"
    if feeder.written_here != "stamp":
        told = f"what sinks.{name} writes into its table would be told as written there, and go round"
        yield "written_here", f"{told}; write written_here: stamp"
        return
    yield from _stamps(feeder, name, sink)
    if feeder.hard_deletes != "local":
        yield (
            "hard_deletes",
            f"sinks.{name} removes no items, so removals are of the region's own services; write hard_deletes: local",
        )
    if feeder.ttl_deletes != "ignore":
        yield (
            "ttl_deletes",
            f"time to live removes the tombstones of sinks.{name} in every region by itself; write ttl_deletes: ignore",
        )


def _stamps(feeder: Changes, name: str, sink: DynamoDbSinkConfig) -> Iterator[tuple[str, str]]:
    if feeder.region_attribute != sink.region_attribute:
        yield (
            "region_attribute",
            f"the writer's region stands in '{sink.region_attribute}' for sinks.{name}; name the same attribute here",
        )
    if feeder.write_id_attribute not in sink.decided_by:
        name_of_it = sink.decided_by[0]
        message = f"what every write changes is '{name_of_it}' for sinks.{name}; write write_id_attribute: {name_of_it}"
        yield "write_id_attribute", message


def _readers(document: Document, config: Config, name: str, sink: DynamoDbSinkConfig, feeder: str) -> Iterator[Problem]:
    """Other sources that read the table would tell what the sink writes there as new."""
    for reader, source in config.sources.items():
        if reader == feeder or not isinstance(source, DynamoDbSourceConfig) or source.written_here != "all":
            continue
        if region := _shared(config, source, sink):
            yield _problem(
                document,
                reader,
                "written_here",
                f"table '{sink.writes_in(region)}' of {region} is written by sinks.{name}, and would be told as "
                "written there; write written_here: stamp",
            )


def _shared(config: Config, source: DynamoDbSourceConfig, sink: DynamoDbSinkConfig) -> Region | None:
    there = filter(source.is_in, config.region_names)
    return next((region for region in there if source.reads_in(region) == sink.writes_in(region)), None)


def prove_tables(config: Config) -> list[str]:
    """What is proven of tables that are written and read. Raises StreamError."""
    sinks = [sink for sink in config.sinks.values() if isinstance(sink, DynamoDbSinkConfig)]
    readers = {
        name: source
        for name, source in config.sources.items()
        if isinstance(source, DynamoDbSourceConfig) and any(_shared(config, source, sink) for sink in sinks)
    }
    for name, source in readers.items():
        if source.written_here == "all":
            raise StreamError(f"changes that links make in {source.table} come back as new ones", name)
    if not readers:
        return []
    names = ", ".join(sorted(readers))
    return [f"Proven for tables: {names} read what links write; there the writer's stamp in an item is what stops it."]


def _problem(document: Document, source: str, field: str, message: str) -> Problem:
    return Problem(document.value_place(("sources", source, field)), f"sources.{source}: {message}")
