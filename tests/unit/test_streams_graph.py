"""The walk over streams and queues: what it accepts reaches each place once, whatever sources share."""

from collections import Counter

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from replicator.core.model import Region
from replicator.core.routing import FORWARD, Route, Router
from replicator.core.streams_graph import Flow, Place, StreamError, spread
from replicator.core.topology import Topologies, chain, compile_generation, hub, mesh

REGIONS = [Region(name) for name in ("a", "b", "c")]
A, B, _ = REGIONS
TOPOLOGIES = [
    Topologies(compile_generation(1, REGIONS, edges))
    for edges in (mesh(REGIONS), hub(REGIONS, REGIONS[1]), chain(REGIONS))
]
MESH = TOPOLOGIES[0].generation(1).trees
Source = tuple[str, str, str, bool]
"""What it reads and writes, in which member it sees tags, and whether it fills its own region's hub."""

source = st.tuples(st.sampled_from("stq"), st.sampled_from("stq"), st.sampled_from("xy"), st.booleans())


def flows_of(*sources: Source) -> list[Flow]:
    return [
        Flow(str(n), Place(here, reads), {peer: Place(peer, writes) for peer in REGIONS}, tag, is_home)
        for n, (reads, writes, tag, is_home) in enumerate(sources)
        for here in REGIONS
    ]


def deliveries(start: Place, sources: list[Source], topologies: Topologies) -> Counter[Place]:
    """Where copies of one event are stored when workers route them one by one; stops at the second of a place."""
    stored = Counter([start])
    under_way = [(start, "", Route(1, start.region))]
    while under_way and max(stored.values()) < 2:
        (here, name), tag, route = under_way.pop()
        for reads, writes, member, is_home in sources:
            if reads != name:
                continue
            seen = route if tag == member else Route(1, here)
            if is_home:
                after = [] if tag == member else [(Place(here, writes), member, Route(1, here))]
            else:
                onward = Route(1, seen.origin, (*seen.path, here))
                after = [
                    (Place(peer, writes), member, onward)
                    for peer in REGIONS
                    if peer != here and Router(topologies, here, peer).decide(seen) is FORWARD
                ]
            stored.update(place for place, *_ in after)
            under_way += after
    return stored


@given(st.lists(source, min_size=1, max_size=4), st.sampled_from(TOPOLOGIES), st.sampled_from("st"))
def test_it_accepts_exactly_what_stores_an_event_once_in_each_place(
    sources: list[Source], topologies: Topologies, name: str
) -> None:
    start = Place(A, name)
    stored = deliveries(start, sources, topologies)
    try:
        ways = spread(start, flows_of(*sources), topologies.generation(1).trees)
    except StreamError:
        event("refused")
        assert max(stored.values()) > 1
    else:
        event(f"accepted, {len(ways)} places")
        assert stored == Counter(list(ways))


def test_crossed_streams_whose_tags_are_not_seen_are_named_with_the_way_back() -> None:
    flows = flows_of(("s", "t", "x", False), ("t", "s", "y", False))
    with pytest.raises(StreamError, match="events of s of a come back to it: s of a -> t of b -> s of a") as refused:
        spread(Place(A, "s"), flows, MESH)
    assert refused.value.source == "1"


def test_crossed_streams_whose_tags_are_seen_are_fine() -> None:
    ways = spread(Place(A, "s"), flows_of(("s", "t", "x", False), ("t", "s", "x", False)), MESH)
    assert ways.keys() == {Place(A, "s"), *(Place(region, "t") for region in REGIONS if region != A)}


def test_two_sources_that_fill_one_place_are_named_with_both_ways() -> None:
    flows = flows_of(("s", "q", "x", False), ("s", "q", "x", False))
    with pytest.raises(StreamError, match="events of s of a reach q of b twice: s of a -> q of b and s of a -> q of b"):
        spread(Place(A, "s"), flows, MESH)
