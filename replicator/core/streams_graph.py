"""Where the copies of one event get to: over regions, streams and queues, not over regions alone.

How it works: what a source does in one region is a `Flow`: it reads one place and writes others. `spread` follows an
event from the place where a producer wrote it, as workers would: a source that sees the tag of a copy routes it by the
tree of its origin and never to a region it came from; a source that does not see it takes the copy for a new event of
its own region, which starts all over.

Why nothing loops: each place may be reached once. The first place that is reached again ends the walk with both ways,
so a walk is no longer than there are places. Sources of which one reads what another writes pass it because tags are
seen; that is the check of origin and path which `core.routing` makes for every event.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from replicator.core.model import Region
from replicator.core.topology import TopologyError, Tree


class Place(NamedTuple):
    """A stream or queue of a region, such as ``stream 'hub'``."""

    region: Region
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.region}"


class Flow(Struct, frozen=True):
    """What one source does in one region.

    ``tag``: the member in which it sees and leaves tags. ``writes``: what its sink is in each region.
    ``is_home``: it fills its own region's hub, with what bears no tag yet.
    """

    source: str
    reads: Place
    writes: Mapping[Region, Place]
    tag: str
    is_home: bool = False


class StreamError(TopologyError):
    """An event reaches a place twice, or comes back to where it began, by the last link of ``source``."""

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


class _Copy(Struct, frozen=True):
    """``tag``: the member its tag is in; empty where a producer wrote it. ``trail``: all places it was in."""

    trail: tuple[Place, ...]
    tag: str
    origin: Region
    visited: tuple[Region, ...] = ()


def spread(start: Place, flows: Sequence[Flow], trees: Mapping[Region, Tree]) -> dict[Place, tuple[Place, ...]]:
    """The way to every place that an event written to ``start`` gets to. Raises StreamError for a second way."""
    ways: dict[Place, tuple[Place, ...]] = {start: (start,)}
    waiting = deque([_Copy((start,), "", start.region)])
    readers = defaultdict[Place, list[Flow]](list)
    for flow in flows:
        readers[flow.reads].append(flow)
    while waiting:
        copy = waiting.popleft()
        for flow in readers[copy.trail[-1]]:
            for after in _onward(copy, flow, trees):
                place = after.trail[-1]
                if place in ways:
                    raise StreamError(_again(ways[place], after.trail), flow.source)
                ways[place] = after.trail
                waiting.append(after)
    return ways


def _onward(copy: _Copy, flow: Flow, trees: Mapping[Region, Tree]) -> Iterator[_Copy]:
    here = flow.reads.region
    is_seen = copy.tag == flow.tag
    if flow.is_home:
        if not is_seen:
            yield _Copy((*copy.trail, flow.writes[here]), flow.tag, here)
        return
    origin, visited = (copy.origin, copy.visited) if is_seen else (here, ())
    for peer in sorted(trees.get(origin, {}).get(here, frozenset()) - {origin, *visited}):
        yield _Copy((*copy.trail, flow.writes[peer]), flow.tag, origin, (*visited, here))


def _again(first: Sequence[Place], second: Sequence[Place]) -> str:
    if len(first) == 1:
        return f"events of {first[0]} come back to it: {_arrow(second)}"
    return f"events of {first[0]} reach {first[-1]} twice: {_arrow(first)} and {_arrow(second)}"


def _arrow(trail: Sequence[Place]) -> str:
    return " -> ".join(map(str, trail))
