"""Topologies: which region sends events of which origin to whom, and the proof that it is right.

How it works: regions and directed edges are compiled into one tree per origin. Edges that any origin may use
give the tree of shortest paths from the origin (ties go to the region that comes first by name); for an
origin that is named on edges exactly those edges are its routes.

Why nothing loops: a compiled tree is not trusted but walked, by `prove`, from every origin: each region must
be reached exactly once, which excludes a cycle and a second path. What can't be proven is refused with the
cycle, the two paths or the region that is never reached, for every origin at once.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from replicator.core.model import Region
from replicator.errors import ConfigError

REGIONS_MAX = 12
"""Tags carry the visited path; 12 regions keep it short, and no tree is deeper than what a tag may hold."""


class TopologyError(ConfigError):
    """The topology can't be proven; the message names the cycle, the two paths or what is not reached.

    ``edge``: the first link that is one too many, where there is one.
    """

    def __init__(self, message: str, edge: tuple[Region, Region] | None = None) -> None:
        super().__init__(message)
        self.edge = edge


class Edge(Struct, frozen=True):
    """A directed connection. ``origins``: whose events it carries; None: any, by shortest path."""

    source: Region
    target: Region
    origins: frozenset[Region] | None = None


Tree = Mapping[Region, frozenset[Region]]
"""For one origin: the children of every region."""


class Generation(Struct, frozen=True):
    """One topology, compiled and proven: trees and paths by origin. ``starts_ms``: see `Topologies`."""

    number: int
    regions: tuple[Region, ...]
    trees: dict[Region, dict[Region, frozenset[Region]]]
    paths: dict[Region, dict[Region, tuple[Region, ...]]]
    starts_ms: int = 0


def mesh(regions: Sequence[Region]) -> list[Edge]:
    """Every region sends straight to every other."""
    return [Edge(a, b) for a in regions for b in regions if a != b]


def hub(regions: Sequence[Region], centre: Region) -> list[Edge]:
    """``centre`` relays between all others."""
    return [edge for r in regions if r != centre for edge in (Edge(r, centre), Edge(centre, r))]


def chain(order: Sequence[Region]) -> list[Edge]:
    """Each region sends to its neighbours in ``order``, which relay."""
    pairs = list(pairwise(order))
    return [Edge(a, b) for a, b in pairs] + [Edge(b, a) for a, b in pairs]


def compile_generation(number: int, regions: Sequence[Region], edges: Iterable[Edge], starts_ms: int = 0) -> Generation:
    """Trees for every origin, each proven. Raises TopologyError."""
    known = tuple(sorted(regions))
    links = list(edges)
    _check_edges(known, links)
    trees = {origin: _tree(origin, known, links) for origin in known}
    return Generation(number, known, trees, _prove_all(known, trees), starts_ms)


def _prove_all(
    regions: Sequence[Region], trees: Mapping[Region, Tree]
) -> dict[Region, dict[Region, tuple[Region, ...]]]:
    paths: dict[Region, dict[Region, tuple[Region, ...]]] = {}
    refusals: list[TopologyError] = []
    for origin, tree in trees.items():
        try:
            paths[origin] = prove(origin, regions, tree)
        except TopologyError as exc:
            refusals.append(exc)
    if refusals:
        edge = next((refusal.edge for refusal in refusals if refusal.edge), None)
        raise TopologyError("; ".join(map(str, refusals)), edge)
    return paths


def _check_edges(regions: Sequence[Region], edges: Sequence[Edge]) -> None:
    if len(regions) > REGIONS_MAX:
        raise TopologyError(f"{len(regions)} regions; {REGIONS_MAX} is the most")
    seen: set[tuple[Region, Region]] = set()
    for edge in edges:
        ends = (edge.source, edge.target)
        name = f"the link {edge.source} -> {edge.target}"
        for region in (edge.source, edge.target, *(edge.origins or ())):
            if region not in regions:
                raise TopologyError(f"{name} names {region}, which is no region here", ends)
        if edge.source == edge.target:
            raise TopologyError(f"{name} leads back to itself", ends)
        if ends in seen:
            raise TopologyError(f"{name} is there twice", ends)
        seen.add(ends)


def _tree(origin: Region, regions: Sequence[Region], edges: Sequence[Edge]) -> dict[Region, frozenset[Region]]:
    named = [edge for edge in edges if edge.origins is not None and origin in edge.origins]
    if named:
        return _children(regions, named)
    return _children(regions, _shortest(origin, [edge for edge in edges if edge.origins is None]))


def _children(regions: Sequence[Region], edges: Sequence[Edge]) -> dict[Region, frozenset[Region]]:
    return {region: frozenset(edge.target for edge in edges if edge.source == region) for region in regions}


def _shortest(origin: Region, edges: Sequence[Edge]) -> list[Edge]:
    """The edges of a breadth-first tree; neighbours by name, so that all regions compile the same tree."""
    reached = {origin}
    waiting = deque([origin])
    used: list[Edge] = []
    while waiting:
        region = waiting.popleft()
        for edge in sorted((e for e in edges if e.source == region), key=lambda e: e.target):
            if edge.target not in reached:
                reached.add(edge.target)
                used.append(edge)
                waiting.append(edge.target)
    return used


def prove(origin: Region, regions: Sequence[Region], tree: Tree) -> dict[Region, tuple[Region, ...]]:
    """Walk the tree from its origin; the path to every region.

    Raises TopologyError unless each is reached exactly once.
    """
    paths: dict[Region, tuple[Region, ...]] = {origin: (origin,)}
    waiting = deque([origin])
    while waiting:
        region = waiting.popleft()
        for child in sorted(tree.get(region, frozenset())):
            path = (*paths[region], child)
            if child in paths[region]:
                cycle = path[path.index(child) :]
                raise TopologyError(f"cycle {_arrow(cycle)} for events from {origin}", (region, child))
            if child in paths:
                both = f"{_arrow(paths[child])} and {_arrow(path)}"
                raise TopologyError(f"{child} is reached twice by events from {origin}: {both}", (region, child))
            paths[child] = path
            waiting.append(child)
    missed = [region for region in regions if region not in paths]
    if missed:
        raise TopologyError(f"events from {origin} never reach {', '.join(missed)}")
    stray = [region for region in tree if region not in paths and tree[region]]
    if stray:
        raise TopologyError(f"events from {origin} never reach {', '.join(stray)}, which would relay them")
    return paths


def _arrow(path: Iterable[Region]) -> str:
    return " -> ".join(path)


class Topologies:
    """All generations that may still be under way; implements `routing.Routes`.

    A generation starts at a time of the source: an event leaves its origin under the newest one that had started when
    the event arrived there. So all links, workers and restarts decide alike for one event, however far each is behind,
    and no link can take an event for another's duty. Raises TopologyError where two share a number or starts are out of
    order.
    """

    def __init__(self, *generations: Generation) -> None:
        ordered = sorted(generations, key=lambda generation: generation.number)
        self._generations = {generation.number: generation for generation in ordered}
        for older, newer in pairwise(ordered):
            if older.number == newer.number:
                raise TopologyError(f"generation {newer.number} is there twice")
            if older.starts_ms >= newer.starts_ms:
                raise TopologyError(f"generation {newer.number} does not start after generation {older.number}")
        self.newest = ordered[-1].number
        self._first = ordered[0].number
        self._starts = [(generation.starts_ms, generation.number) for generation in ordered[:0:-1]]

    def generation(self, number: int) -> Generation:
        return self._generations[number]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._generations)

    def generation_at(self, arrival_ms: int) -> int:
        """The generation that events leave their origin under which arrived in its hub at that time."""
        for starts_ms, number in self._starts:
            if arrival_ms >= starts_ms:
                return number
        return self._first

    def children(self, generation: int, origin: Region, at: Region) -> frozenset[Region] | None:
        """Where ``at`` sends events of ``origin``; None for an unknown generation."""
        known = self._generations.get(generation)
        return None if known is None else known.trees.get(origin, {}).get(at, frozenset())

    def hops_max(self, generation: int) -> int:
        """The number of links on the longest route."""
        paths = self._generations[generation].paths
        return max(len(path) for routes in paths.values() for path in routes.values()) - 1

    def links_from(self, region: Region) -> frozenset[Region]:
        """The peers ``region`` sends to under any generation."""
        return frozenset(
            child
            for generation in self._generations.values()
            for tree in generation.trees.values()
            for child in tree.get(region, frozenset())
        )
