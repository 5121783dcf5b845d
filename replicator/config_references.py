"""What refers to something else in the file by name: sinks, sources, regions, and links that are there twice.

Looks at plain data, so that it finds its mistakes beside those of single fields. What has the wrong shape is skipped:
that is reported already.
"""

import difflib
from collections.abc import Collection, Iterator

from replicator.config_base import REGION
from replicator.config_regions import named_regions
from replicator.config_yaml import Document, Problem, dotted


def references(document: Document) -> Iterator[Problem]:
    """Names of nothing, and settings of one link in two entries."""
    yield from _unknown_sinks(document)
    yield from _unknown_sources(document)
    yield from _duplicate_links(document)
    yield from unknown_regions(document, ("sources", "sinks", "links"))


def unknown_regions(document: Document, parts: Collection[str]) -> Iterator[Problem]:
    """Regions that are named in these parts of the file, and that nobody runs."""
    known = _block(document, "regions")
    for path, name, is_key in named_regions(document.data, ()):
        # What is no region's name at all is reported already.
        if known and path[0] in parts and name not in known and REGION.fullmatch(name):
            place = document.key_place(path) if is_key else document.value_place(path)
            yield Problem(place, _unknown(name, "region", known))


def _unknown_sinks(document: Document) -> Iterator[Problem]:
    known = _block(document, "sinks")
    for name, source in _block(document, "sources").items():
        path = ("sources", name, "sink")
        sink = source.get("sink") if isinstance(source, dict) else None
        if known and isinstance(sink, str) and sink not in known and path not in document.missing:
            yield Problem(document.value_place(path), f"{dotted(path)}: {_unknown(sink, 'sink', known)}")


def _unknown_sources(document: Document) -> Iterator[Problem]:
    known = _block(document, "sources")
    for index, link in _links(document):
        path = ("links", index, "source")
        source = link.get("source")
        if known and isinstance(source, str) and source not in known and path not in document.missing:
            yield Problem(document.value_place(path), _unknown(source, "source", known))


def _duplicate_links(document: Document) -> Iterator[Problem]:
    seen: dict[tuple[object, ...], int] = {}
    for index, link in _links(document):
        source, peer, here = key = link.get("source"), link.get("peer"), link.get("from")
        if not (isinstance(source, str) and isinstance(peer, str) and isinstance(here, str | None)):
            continue
        if key in seen:
            first = document.value_place(("links", seen[key])).line
            yield Problem(
                document.value_place(("links", index)),
                f"link {source} -> {peer} has settings already on line {first}; merge the two",
            )
        seen.setdefault(key, index)


def _unknown(name: str, kind: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {kind} '{name}'" + (
        f", did you mean '{close[0]}'?" if close else f"; there is: {', '.join(known)}"
    )


def _block(document: Document, key: str) -> dict[str, object]:
    """By name; sorted, as messages list them."""
    block = document.data.get(key) if isinstance(document.data, dict) else None
    return dict(sorted(block.items())) if isinstance(block, dict) else {}


def _links(document: Document) -> Iterator[tuple[int, dict[str, object]]]:
    links = document.data.get("links") if isinstance(document.data, dict) else None
    for index, link in enumerate(links if isinstance(links, list) else ()):
        if isinstance(link, dict):
            yield index, link
