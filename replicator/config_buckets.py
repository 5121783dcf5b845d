"""Whether lakes, bodies of large events, and the quarantine are apart where they share a bucket."""

from collections.abc import Callable, Iterator
from itertools import combinations

from msgspec import Struct

from replicator.config import Config
from replicator.config_sinks import S3SinkConfig
from replicator.config_yaml import Document, Path, Problem, dotted


class _Place(Struct, frozen=True):
    """``what`` is kept there; ``path``: what names the bucket; ``field``: what sets the prefix."""

    what: str
    path: Path
    field: str
    bucket_in: Callable[[str], str]
    prefix: str


def buckets(document: Document, config: Config) -> Iterator[Problem]:
    """Whoever reads one of them lists all that begins so, and would find the others' objects among its own."""
    for first, second in combinations(_places(config), 2):
        is_one = second.prefix.startswith(first.prefix) or first.prefix.startswith(second.prefix)
        shared = [r for r in config.region_names if first.bucket_in(r) == second.bucket_in(r)]
        if first.what != second.what and is_one and shared:
            yield Problem(
                document.value_place(second.path),
                f"{dotted(second.path)}: {second.what} under '{second.prefix}' and {first.what} under '{first.prefix}' "
                f"of {dotted(first.path)} would be among each other in bucket '{first.bucket_in(shared[0])}'; give "
                f"{second.field} another beginning",
            )


def _places(config: Config) -> Iterator[_Place]:
    for name, sink in config.sinks.items():
        path: Path = ("sinks", name)
        if isinstance(sink, S3SinkConfig):
            yield _Place("events", path, f"{dotted(path)}.prefix", sink.writes_in, sink.prefix)
        elif (checks := getattr(sink, "claim_check", None)) is not None:
            path = (*path, "claim_check")
            yield _Place("bodies", path, f"{dotted(path)}.prefix", checks.writes_in, checks.prefix)
    chosen, field = config.quarantine, "quarantine.s3_prefix"
    lake = config.sinks.get(chosen.lake or "")
    if (bucket := chosen.s3_bucket) is not None:
        yield _Place("poison", ("quarantine", "s3_bucket"), field, lambda _: bucket, chosen.s3_prefix)
    elif isinstance(lake, S3SinkConfig):
        yield _Place("poison", ("quarantine", "lake"), field, lake.writes_in, chosen.s3_prefix)
