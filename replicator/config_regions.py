"""Where a configuration names regions, and whether the names are canonical."""

from collections.abc import Iterator

from replicator.config_base import check_region_name
from replicator.config_yaml import Document, Path, Problem
from replicator.core.lake import LAKE

NAMES_BY_REGION = {"streams", "tables", "queues", "buses", "buckets"}


def misnamed_regions(document: Document) -> Iterator[Problem]:
    """Every place where a region is named must use the canonical name."""
    for path, value, is_key in named_regions(document.data, ()):
        try:
            check_region_name(value)
        except ValueError as exc:
            yield Problem(document.key_place(path) if is_key else document.value_place(path), str(exc))


def named_regions(data: object, path: Path) -> Iterator[tuple[Path, str, bool]]:
    """Path and name of every region named in ``data``, and whether the name is a key."""
    if isinstance(data, dict):
        for key, value in data.items():
            here = (*path, key)
            if path == ("regions",) or (
                len(path) in {3, 4} and path[0] in {"sources", "sinks"} and path[-1] in NAMES_BY_REGION
            ):
                yield here, key, True
            elif key == "peer" and value == LAKE:
                continue
            elif key in {"hub", "peer", "from", "to"} and isinstance(value, str):
                yield here, value, False
            elif path and key in {"order", "origins", "regions"} and isinstance(value, list):
                yield from (((*here, index), name, False) for index, name in enumerate(value) if isinstance(name, str))
            yield from named_regions(value, here)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from named_regions(value, (*path, index))
