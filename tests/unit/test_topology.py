"""Topologies: what `plan` accepts reaches every region exactly once; what it refuses is named."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.model import Region
from replicator.core.topology import (
    Edge,
    Topologies,
    TopologyError,
    chain,
    compile_generation,
    hub,
    mesh,
    prove,
)

A, B, C, D = (Region(name) for name in ("a", "b", "c", "d"))
NAMES = [Region(f"r{n:02}") for n in range(12)]


def deliveries(topologies: Topologies, origin: Region) -> Counter[Region]:
    """Where copies of one event arrive when every region forwards to its children; its own walk."""
    arrived: Counter[Region] = Counter()
    under_way = [origin]
    while under_way and sum(arrived.values()) < 1000:
        region = under_way.pop()
        for child in topologies.children(1, origin, region) or ():
            arrived[child] += 1
            under_way.append(child)
    return arrived


@given(st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(NAMES[:n]), st.sampled_from(["mesh", "hub", "chain"]))))
def test_named_topologies_reach_every_region_exactly_once(case: tuple[list[Region], str]) -> None:
    regions, kind = case
    edges = {"mesh": mesh(regions), "hub": hub(regions, regions[-1]), "chain": chain(regions)}[kind]
    topologies = Topologies(compile_generation(1, regions, edges))
    for origin in regions:
        assert deliveries(topologies, origin) == Counter(region for region in regions if region != origin)


@given(st.data(), st.integers(2, 12))
def test_any_graph_is_either_refused_or_reaches_every_region_exactly_once(data: st.DataObject, count: int) -> None:
    regions = NAMES[:count]
    pairs = data.draw(st.sets(st.tuples(st.sampled_from(regions), st.sampled_from(regions)), max_size=40))
    origins = st.none() | st.frozensets(st.sampled_from(regions), min_size=1)
    edges = [Edge(a, b, data.draw(origins)) for a, b in sorted(pairs) if a != b]
    try:
        topologies = Topologies(compile_generation(1, regions, edges))
    except TopologyError:
        return
    for origin in regions:
        assert deliveries(topologies, origin) == Counter(region for region in regions if region != origin)
        assert topologies.hops_max(1) < count


@given(st.data(), st.integers(2, 6))
def test_explicit_routes_are_accepted_exactly_when_a_walk_finds_each_region_once(
    data: st.DataObject, count: int
) -> None:
    regions = NAMES[:count]
    pairs = data.draw(st.sets(st.tuples(st.sampled_from(regions), st.sampled_from(regions)), max_size=12))
    tree = {r: frozenset(b for a, b in pairs if a == r and a != b) for r in regions}
    arrived: Counter[Region] = Counter({regions[0]: 1})
    under_way = [regions[0]]
    while under_way and max(arrived.values()) < 2:
        for child in tree[under_way.pop()]:
            arrived[child] += 1
            under_way.append(child)
    is_right = all(arrived[region] == 1 for region in regions)
    try:
        prove(regions[0], regions, tree)
    except TopologyError:
        assert not is_right
    else:
        assert is_right


@given(st.data(), st.integers(2, 6))
def test_explicit_origins_are_accepted_exactly_when_every_origin_reaches_each_region_once(
    data: st.DataObject, count: int
) -> None:
    """Random trees, a few of them spoilt by one edge too many or too few."""
    regions = NAMES[:count]
    routes = {origin: random_tree(data, origin, regions) for origin in regions}
    for origin in data.draw(st.lists(st.sampled_from(regions), max_size=2)):
        a, b = data.draw(st.tuples(st.sampled_from(regions), st.sampled_from(regions)).filter(is_edge))
        routes[origin] ^= {(a, b)}
    pairs = sorted({pair for tree in routes.values() for pair in tree})
    edges = [Edge(a, b, frozenset(o for o in regions if (a, b) in routes[o])) for a, b in pairs]
    is_right = all(reaches_each_once(origin, regions, routes[origin]) for origin in regions)
    try:
        compile_generation(1, regions, edges)
    except TopologyError:
        assert not is_right
    else:
        assert is_right


def random_tree(data: st.DataObject, origin: Region, regions: list[Region]) -> set[tuple[Region, Region]]:
    reached, tree = [origin], set()
    for region in data.draw(st.permutations([r for r in regions if r != origin])):
        tree.add((data.draw(st.sampled_from(reached)), region))
        reached.append(region)
    return tree


def is_edge(pair: tuple[Region, Region]) -> bool:
    return pair[0] != pair[1]


def reaches_each_once(origin: Region, regions: list[Region], routes: set[tuple[Region, Region]]) -> bool:
    """Brute force: follow every copy until a region has two."""
    arrived: Counter[Region] = Counter({origin: 1})
    under_way = [origin]
    while under_way and max(arrived.values()) < 2:
        at = under_way.pop()
        for a, b in routes:
            if a == at:
                arrived[b] += 1
                under_way.append(b)
    return all(arrived[region] == 1 for region in regions)


def test_a_refusal_names_every_origin_that_is_wrong() -> None:
    with pytest.raises(TopologyError, match="from b never reach a; events from c never reach a, b"):
        compile_generation(1, [A, B, C], [Edge(A, B), Edge(B, C)])


def test_a_strongly_connected_graph_without_restrictions_is_always_accepted() -> None:
    ring = [Edge(A, B), Edge(B, C), Edge(C, A)]
    generation = compile_generation(1, [A, B, C], ring)
    assert generation.paths[A][C] == (A, B, C)
    assert generation.paths[C][B] == (C, A, B)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            [Edge(A, B, frozenset({A})), Edge(B, C, frozenset({A})), Edge(C, A, frozenset({A}))],
            "cycle a -> b -> c -> a",
        ),
        (
            [Edge(A, B, frozenset({A})), Edge(A, C, frozenset({A})), Edge(B, C, frozenset({A}))],
            "c is reached twice by events from a: a -> c and a -> b -> c",
        ),
        ([Edge(A, B), Edge(B, A)], "events from a never reach c"),
        ([Edge(A, A)], "leads back to itself"),
        ([Edge(A, B), Edge(A, B)], "there twice"),
        ([Edge(A, D)], "names d, which is no region here"),
    ],
)
def test_what_cannot_be_proven_is_refused_by_name(edges: list[Edge], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        compile_generation(1, [A, B, C], edges)


def test_generations_live_side_by_side_until_drained() -> None:
    regions = [A, B, C]
    older, newer = compile_generation(1, regions, hub(regions, B)), compile_generation(2, regions, mesh(regions), 1000)
    topologies = Topologies(newer, older)
    assert topologies.children(2, A, A) == {B, C}
    assert topologies.children(1, A, A) == {B}
    assert topologies.children(3, A, A) is None
    assert topologies.links_from(B) == {A, C}
    assert topologies.newest == 2


@pytest.mark.parametrize(("arrival_ms", "number"), [(0, 1), (999, 1), (1000, 2), (4999, 2), (5000, 5)])
def test_an_event_leaves_under_the_generation_that_had_started_when_it_arrived(arrival_ms: int, number: int) -> None:
    regions = [A, B]
    made = [compile_generation(n, regions, mesh(regions), starts_ms) for n, starts_ms in ((2, 1000), (5, 5000), (1, 0))]
    assert Topologies(*made).generation_at(arrival_ms) == number


@pytest.mark.parametrize("starts_ms", [0, 999, 1000])
def test_a_newer_generation_starts_later(starts_ms: int) -> None:
    older = compile_generation(1, [A, B], mesh([A, B]), 1000)
    with pytest.raises(TopologyError, match="generation 2 does not start after generation 1"):
        Topologies(older, compile_generation(2, [A, B], mesh([A, B]), starts_ms))
