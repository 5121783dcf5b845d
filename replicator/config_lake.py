"""Whether what is kept in S3 fits: lakes of hubs and the links there, and the bodies of large events."""

from collections.abc import Iterator
from importlib.util import find_spec

from replicator.config import Config, LinkDefaults, link_name
from replicator.config_sinks import ClaimCheckConfig, S3SinkConfig
from replicator.config_yaml import Document, Path, Problem, dotted
from replicator.core.lake import INSTALL_PARQUET, LAKE


def lakes(document: Document, config: Config) -> Iterator[Problem]:
    """Problems of `lake` of a hub, of sinks of kind s3, of overrides for the peer `lake`, and of `claim_check`."""
    yield from _named(document, config)
    yield from _continued(document, config)
    yield from _shared(document, config)
    yield from _opaque(document, config)
    yield from _overrides(document, config)


def unwritable(document: Document) -> Iterator[Problem]:
    """Formats of lakes that this machine can't write. A worker stops for want of them; a laptop need not."""
    sinks = document.data.get("sinks") if isinstance(document.data, dict) else None
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        if isinstance(sink, dict) and sink.get("format") == "parquet" and find_spec("pyarrow") is None:
            path = ("sinks", name, "format")
            message = f"pyarrow is not installed here; the worker needs it: {INSTALL_PARQUET}"
            yield Problem(document.value_place(path), f"{dotted(path)}: {message}")


def _which_lakes(config: Config, instead: str = "") -> str:
    """How a complaint about a lake ends: with those there are, or with what to do ``instead``."""
    of_kind = [name for name, sink in config.sinks.items() if isinstance(sink, S3SinkConfig)]
    return f"; there is: {', '.join(of_kind)}" if of_kind else f", and there is none{instead}"


def paused(document: Document, config: Config) -> Iterator[Problem]:
    """Lakes that are to give what a hub has forgotten, and get nothing meanwhile."""
    for name, source in config.sources.items():
        if getattr(source, "continue_from", None) is None:
            continue
        still = [region for region in config.region_names if config.link(name, region, LAKE).paused]
        if still:
            path = ("sources", name, "continue_from")
            message = f"{link_name(name, LAKE)} is paused in {', '.join(still)}: what the hub forgets there"
            yield Problem(document.value_place(path), f"{dotted(path)}: {message} meanwhile is lost to links behind it")


def no_lake(config: Config, name: str, instead: str = "") -> str:
    """What is said where a lake is to be named, and this is none."""
    there_is = "a lake is" if name in config.sinks else f"there is no sink '{name}'; a lake is"
    return f"{there_is} a sink of kind s3{_which_lakes(config, instead)}"


def _named(document: Document, config: Config) -> Iterator[Problem]:
    for name, source in config.sources.items():
        lake = getattr(source, "lake", None)
        if lake is not None and not isinstance(config.sinks.get(lake), S3SinkConfig):
            path = ("sources", name, "lake")
            yield Problem(document.value_place(path), f"{dotted(path)}: {no_lake(config, lake)}")
        if isinstance(config.sinks.get(source.sink), S3SinkConfig):
            path = ("sources", name, "sink")
            yield Problem(
                document.value_place(path),
                f"{dotted(path)}: a sink of kind s3 keeps events and brings them to nobody; name it as the hub's lake",
            )


def _continued(document: Document, config: Config) -> Iterator[Problem]:
    """Only what this very hub filled has the positions of its streams, and `continue_from` names that."""
    for name, source in config.sources.items():
        chosen, lake = getattr(source, "continue_from", None), getattr(source, "lake", None)
        if chosen is None or chosen == lake:
            continue
        path = ("sources", name, "continue_from")
        if not isinstance(config.sinks.get(chosen), S3SinkConfig):
            message = no_lake(config, chosen)
        elif lake is None:
            message = f"nothing of this source goes into '{chosen}'; write lake: {chosen} beside it"
        else:
            message = f"this source fills '{lake}' and not '{chosen}'; write continue_from: {lake}"
        yield Problem(document.value_place(path), f"{dotted(path)}: {message}")


def _shared(document: Document, config: Config) -> Iterator[Problem]:
    """A bucket is one region's: to the lake of another one its events would be strangers, and bodies belong there."""
    for name, sink in config.sinks.items():
        if isinstance(sink, S3SinkConfig):
            yield from _of_one_region(document, config, ("sinks", name), sink)
        elif (claim_check := getattr(sink, "claim_check", None)) is not None:
            yield from _of_one_region(document, config, ("sinks", name, "claim_check"), claim_check)


def _of_one_region(
    document: Document, config: Config, path: Path, buckets: S3SinkConfig | ClaimCheckConfig
) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for region in config.region_names:
        bucket = buckets.writes_in(region)
        if bucket in first:
            yield Problem(
                document.value_place((*path, "bucket")),
                f"{dotted(path)}: {first[bucket]} and {region} would share bucket '{bucket}'; give each region its "
                "own under buckets",
            )
            return
        first[bucket] = region


def _opaque(document: Document, config: Config) -> Iterator[Problem]:
    """A pointer is an event of JSON."""
    for name, source in config.sources.items():
        is_checked = getattr(config.sinks.get(source.sink), "claim_check", None) is not None
        if is_checked and getattr(source, "format", "") == "opaque":
            yield Problem(
                document.value_place(("sources", name, "format")),
                f"sources.{name}: claim_check of sinks.{source.sink} makes pointers of JSON, and this is opaque; "
                "read it as json, lambda-stream or cloudevents, or name another sink",
            )


def _overrides(document: Document, config: Config) -> Iterator[Problem]:
    for index, link in enumerate(config.links):
        if link.peer != LAKE or link.source not in config.sources:
            continue
        if getattr(config.sources[link.source], "lake", None) is None:
            message = f"sources.{link.source} has no lake"
            yield Problem(document.value_place(("links", index)), message)
        for field in sorted((link.model_fields_set & LinkDefaults.model_fields.keys()) - {"paused"}):
            yield Problem(
                document.key_place(("links", index, field)),
                "a link into the lake takes everything, in the order of the hub, and can only be paused; "
                f"leave {field} out",
            )
