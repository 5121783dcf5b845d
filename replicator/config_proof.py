"""Whether every generation of the topology can be proven, also where something else in the file is wrong."""

from collections.abc import Iterator
from itertools import pairwise

from pydantic import ValidationError

from replicator.config_base import REGION
from replicator.config_references import unknown_regions
from replicator.config_regions import named_regions
from replicator.config_topology import GenerationConfig, TopologyConfig
from replicator.config_yaml import Document, Path, Problem
from replicator.core.model import Region
from replicator.core.topology import TopologyError

Placed = tuple[Path, GenerationConfig]


def unproven(document: Document) -> list[Problem] | None:
    """What is wrong with the topologies; None where the file does not say well enough what they are."""
    regions = _regions(document)
    if not regions:
        return None
    # A topology over regions that don't exist proves nothing, so the one is reported before the other.
    named = {name for path, name, _ in named_regions(document.data, ()) if path[0] == "topology"}
    if not named <= set(regions):
        return list(unknown_regions(document, ("topology",))) or None
    assert isinstance(document.data, dict)  # it has regions
    try:
        topology = TopologyConfig.model_validate(document.data.get("topology", {}))
    except ValidationError:
        return None
    generations: list[Placed] = [
        (("topology",), topology),
        *((("topology", "previous", n), old) for n, old in enumerate(topology.previous)),
    ]
    return [
        *_twice(document, generations),
        *_without_start(document, generations),
        *_refused(document, generations, regions),
    ]


def _regions(document: Document) -> list[Region]:
    """All regions; none where one of them is none, which is reported elsewhere."""
    blocks = document.data.get("regions") if isinstance(document.data, dict) else None
    names = sorted(map(Region, blocks)) if isinstance(blocks, dict) else []
    return names if len(names) > 1 and all(map(REGION.fullmatch, names)) else []


def _twice(document: Document, generations: list[Placed]) -> Iterator[Problem]:
    numbers: set[int] = set()
    for path, generation in generations:
        if generation.generation in numbers:
            place = document.value_place((*path, "generation"))
            yield Problem(place, f"generation {generation.generation} is there twice; give every topology its own")
        numbers.add(generation.generation)


def _without_start(document: Document, generations: list[Placed]) -> Iterator[Problem]:
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


def _refused(document: Document, generations: list[Placed], regions: list[Region]) -> Iterator[Problem]:
    for path, generation in generations:
        try:
            generation.compile(regions)
        except TopologyError as exc:
            yield Problem(document.value_place(_fault(path, generation, exc)), f"topology: {exc}")


def _fault(path: Path, generation: GenerationConfig, error: TopologyError) -> Path:
    """The link that is one too many, else the field that the topology comes from."""
    links = [(edge.source, edge.target) for edge in generation.links or []]
    if generation.kind == "links" and error.edge in links:
        return (*path, "links", len(links) - 1 - links[::-1].index(error.edge))
    field = {"hub": "hub", "chain": "order", "links": "links"}.get(generation.kind)
    return (*path, field) if field else path
