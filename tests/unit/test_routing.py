"""Routing: an event follows the tree of its origin, and never goes where it has been."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.routing import (
    FORWARD,
    HOP_LIMIT,
    NO_ROUTE,
    RETURNED,
    VISITED,
    Drop,
    Forward,
    Route,
    Router,
    outgoing_tag,
)
from replicator.core.tag import Tag
from replicator.errors import PoisonEvent

A, B, C, D = (Region(name) for name in ("us-east-1", "eu-west-1", "ap-southeast-2", "sa-east-1"))


class Table:
    """Children by (origin, region) for generation 1."""

    def __init__(self, children: dict[tuple[Region, Region], set[Region]], hops: int = 3) -> None:
        self._children = children
        self._hops = hops

    def children(self, generation: int, origin: Region, at: Region) -> frozenset[Region] | None:
        return frozenset(self._children.get((origin, at), set())) if generation == 1 else None

    def hops_max(self, generation: int) -> int:
        return self._hops

    def generation_at(self, arrival_ms: int) -> int:
        return 1


def origin_in(region: Region) -> Origin:
    return Origin(region, SourceName("orders"), "1", ShardId("s"), SequenceNumber(1))


def tag_of(*path: Region, generation: int = 1) -> Tag:
    return Tag(generation, origin_in(path[0]), EventId("e"), path, 0)


def route_of(tag: Tag | None, here: Region = A) -> Route:
    return Route(tag.generation, tag.origin.region, tag.path) if tag is not None else Route(1, here)


CHAIN = Table({(A, A): {B}, (A, B): {C}})


@pytest.mark.parametrize(
    ("here", "peer", "tag", "expected"),
    [
        (A, B, None, FORWARD),
        (A, C, None, NO_ROUTE),
        (B, C, tag_of(A), FORWARD),
        (B, A, tag_of(A), NO_ROUTE),
        (A, B, tag_of(A), RETURNED),
    ],
)
def test_the_tree_of_the_origin_decides(here: Region, peer: Region, tag: Tag | None, expected: Forward | Drop) -> None:
    assert Router(CHAIN, here, peer).decide(route_of(tag)) == expected


@pytest.mark.parametrize(
    ("table", "peer", "tag", "expected"),
    [
        (Table({(A, B): {A}}), A, tag_of(A), RETURNED),
        (Table({(A, B): {C}}), C, tag_of(A, C), VISITED),
        (Table({(A, B): {C}}), C, tag_of(A, B), VISITED),
        (Table({(A, B): {C}}, hops=2), C, tag_of(A, D), HOP_LIMIT),
    ],
)
def test_where_tree_and_history_disagree_history_wins(table: Table, peer: Region, tag: Tag, expected: Drop) -> None:
    assert Router(table, B, peer).decide(route_of(tag)) == expected


def test_a_generation_nobody_configured_is_poison() -> None:
    with pytest.raises(PoisonEvent, match="generation 2"):
        Router(CHAIN, B, C).decide(Route(2, A, (A,)))


@given(st.data())
def test_whatever_the_table_says_no_event_goes_where_it_has_been(data: st.DataObject) -> None:
    regions = [A, B, C, D]
    table = Table({(o, at): data.draw(st.sets(st.sampled_from(regions))) for o in regions for at in regions})
    here, peer = data.draw(st.permutations(regions))[:2]
    path = data.draw(st.permutations(regions))[: data.draw(st.integers(1, 4))]
    if Router(table, here, peer).decide(Route(1, path[0], tuple(path))) is FORWARD:
        assert peer not in path
        assert here not in path


def test_a_relayed_event_keeps_all_but_its_path() -> None:
    tag = Tag(4, origin_in(A), EventId("e"), (A,), 99, "trace", "k1.old", "r1")
    sent = outgoing_tag(tag, here=B, generation=7, origin=origin_in(B), event_id="x", trace=None, now_ms=123)
    assert sent == Tag(4, origin_in(A), EventId("e"), (A, B), 99, "trace", replay="r1")


@pytest.mark.parametrize("path", [None, (), (A,)])
def test_what_a_replay_sends_has_the_id_of_the_last_replay(path: tuple[Region, ...] | None) -> None:
    tag = None if path is None else Tag(4, origin_in(A), EventId("e"), path, 99, replay="before")
    where = {"here": B, "generation": 7, "origin": origin_in(B), "event_id": "x", "trace": None, "now_ms": 123}
    assert outgoing_tag(tag, **where, replay="r2").replay == "r2"


def test_an_event_born_here_gets_its_coordinates_and_the_current_generation() -> None:
    sent = outgoing_tag(None, here=A, generation=7, origin=origin_in(A), event_id="x", trace="t", now_ms=123)
    assert sent == Tag(7, origin_in(A), EventId("x"), (A,), 123, "t")
