"""The decision per event and link: forward, or drop with a reason.

How it works: a topology generation gives every origin a tree over the regions. An event is forwarded over a link only
when the link is an edge of the tree of the event's origin, under the generation the event left its origin with. Which
one that is follows from the time it was stored there, so that all links of the origin, however far behind, agree on it.

Why nothing can loop: the trees are proven acyclic before anything runs, and an event only ever follows one of them.
Should the tree and the event's own history disagree (a mistake in a region's configuration), history wins: an event
never goes to its origin or to a region on its path, and never further than the tree is deep.
"""

from typing import Protocol

from msgspec import Struct

from replicator.core.model import EventId, Origin, Region
from replicator.core.tag import Tag
from replicator.errors import PoisonEvent


class Routes(Protocol):
    """What routing needs of the compiled topologies."""

    def children(self, generation: int, origin: Region, at: Region) -> frozenset[Region] | None:
        """Where ``at`` sends events of ``origin``; None for an unknown generation."""
        ...

    def hops_max(self, generation: int) -> int:
        """The depth of the deepest tree of a known generation."""
        ...

    def generation_at(self, arrival_ms: int) -> int:
        """The generation that events leave their origin under which arrived there at that time."""
        ...


class Forward(Struct, frozen=True):
    """The event goes over the link."""


class Drop(Struct, frozen=True):
    """The event does not go over the link, and that is right."""

    reason: str


REPLICA = "replica"
"""Why an event of a table or queue does not enter the hub that bears a tag already."""
FORWARD = Forward()
NO_ROUTE = Drop("no_route")
RETURNED = Drop("returned_to_origin")
VISITED = Drop("already_visited")
HOP_LIMIT = Drop("hop_limit")


class Route(Struct, frozen=True, eq=False):
    """All that routing looks at: an event's generation, its origin's region, and its path (none: it was born here).

    ``drop``: why it goes nowhere whatever the topology says. Shared by the events that go that way, and compared by
    identity.
    """

    generation: int
    origin: Region
    path: tuple[Region, ...] = ()
    drop: str = ""


class HomeRouter:
    """Decides for a link into the region's own hub, which takes all that its source tells."""

    def decide(self, route: Route) -> Forward | Drop:
        return Drop(route.drop) if route.drop else FORWARD


class Router:
    """Decides for one link: from ``here`` to ``peer``."""

    def __init__(self, routes: Routes, here: Region, peer: Region) -> None:
        self._routes = routes
        self._here = here
        self._peer = peer
        self._known: dict[tuple[int, Region], Forward | Drop] = {}

    def decide(self, route: Route) -> Forward | Drop:
        """Raises PoisonEvent ``unknown_generation``."""
        if route.drop:
            return Drop(route.drop)
        if not route.path:
            return self._by_tree(route)
        if route.origin == self._here:
            return RETURNED
        decision = self._by_tree(route)
        return self._by_history(route) or decision if decision is FORWARD else decision

    def _by_history(self, route: Route) -> Drop | None:
        if self._peer == route.origin:
            return RETURNED
        if self._peer in route.path or self._here in route.path:
            return VISITED
        if len(route.path) >= self._routes.hops_max(route.generation):
            return HOP_LIMIT
        return None

    def _by_tree(self, route: Route) -> Forward | Drop:
        place = (route.generation, route.origin)
        decision = self._known.get(place)
        if decision is None:
            decision = self._known[place] = self._look_up(*place)
        return decision

    def _look_up(self, generation: int, origin: Region) -> Forward | Drop:
        children = self._routes.children(generation, origin, self._here)
        if children is None:
            raise PoisonEvent("unknown_generation", f"topology generation {generation} is not configured here")
        return FORWARD if self._peer in children else NO_ROUTE


def outgoing_tag(
    tag: Tag | None,
    *,
    here: Region,
    generation: int,
    origin: Origin,
    event_id: str,
    trace: str | None,
    now_ms: int,
    is_home: bool = False,
    replay: str | None = None,
) -> Tag:
    """The tag an event leaves ``here`` with, or enters its own hub with (``is_home``).

    A relayed event keeps all but its path; one that waited in its own hub keeps its origin and id. ``replay`` is the
    id of the replay that sends it; relays keep it.
    """
    if tag is None:
        path: tuple[Region, ...] = () if is_home else (here,)
        return Tag(generation, origin, EventId(event_id), path, now_ms, trace, replay=replay)
    replay = replay or tag.replay
    if not tag.path:
        return Tag(generation, tag.origin, tag.event_id, (here,), now_ms, tag.trace, replay=replay)
    path = (*tag.path, here)
    return Tag(tag.generation, tag.origin, tag.event_id, path, tag.replicated_ms, tag.trace, replay=replay)
