"""Whether the quarantine fits to what else is configured: the lake it stands beside, the queue, and held keys."""

from collections.abc import Iterator

from replicator.config import Config
from replicator.config_lake import no_lake
from replicator.config_sinks import S3SinkConfig, SqsSinkConfig
from replicator.config_sources import SqsSourceConfig
from replicator.config_yaml import Document, Path, Problem

LAKE_PATH: Path = ("quarantine", "lake")
QUEUE_PATH: Path = ("quarantine", "queue")


def quarantine(document: Document, config: Config) -> Iterator[Problem]:
    """Problems of `quarantine.lake` and `quarantine.queue`."""
    if config.quarantine.lake is not None:
        yield from _lake(document, config, config.quarantine.lake)
    if config.quarantine.queue is not None:
        yield from _used_elsewhere(document, config, config.quarantine.queue)
        yield from _held_keys(document, config)


def _lake(document: Document, config: Config, name: str) -> Iterator[Problem]:
    sink = config.sinks.get(name)
    if not isinstance(sink, S3SinkConfig):
        message = no_lake(config, name, "; name an s3_bucket")
        yield Problem(document.value_place(LAKE_PATH), f"quarantine.lake: {message}")


def _used_elsewhere(document: Document, config: Config, queue: str) -> Iterator[Problem]:
    """A queue that is read as a source would bring its poison back as events."""
    for region in config.region_names:
        read = [
            f"sources.{name}"
            for name, source in config.sources.items()
            if isinstance(source, SqsSourceConfig) and source.is_in(region) and source.reads_in(region) == queue
        ]
        written = [
            f"sinks.{name}"
            for name, sink in config.sinks.items()
            if isinstance(sink, SqsSinkConfig) and sink.writes_in(region) == queue
        ]
        for name in [*read, *written][:1]:
            yield Problem(
                document.value_place(QUEUE_PATH),
                f"quarantine.queue: '{queue}' of {region} is the queue of {name}, where poison would be among events; "
                "give it a queue of its own",
            )
            return


def _held_keys(document: Document, config: Config) -> Iterator[Problem]:
    """Whoever takes messages from the queue takes them out of the middle of a held key."""
    settings = [
        (("link_defaults",), config.link_defaults),
        *((("links", n), link) for n, link in enumerate(config.links)),
    ]
    for path, link in settings:
        if link.on_poison == "hold_key":
            yield Problem(
                document.value_place((*path, "on_poison")),
                "on_poison: hold_key keeps a key's events in order until they are redriven, and a queue keeps none; "
                "write 'on_poison: skip', or leave quarantine.queue out",
            )
