"""What is in doubt, as /status and the metrics show it."""

from collections.abc import Collection

from msgspec import Struct

from replicator.ports import Telemetry
from replicator.worker.link import Link


class Doubt(Struct, frozen=True):
    """On one (link, shard).

    ``is_looking``: a former owner's events are being looked up, so nothing of the shard is sent. ``is_held``: the peer
    can't tell, and by choice nothing is sent without. ``events``: of this worker's own requests, being looked up.
    """

    is_looking: bool
    is_held: bool
    events: int


def link_state(link: Link, doubts: Collection[Doubt]) -> str:
    """``held`` while any shard is, ``in_doubt`` while any waits to hear of a lost owner's events, else the link's."""
    if any(doubt.is_held for doubt in doubts):
        return "held"
    return "in_doubt" if any(doubt.is_looking for doubt in doubts) else link.state


def in_doubt(link: Link, doubts: Collection[Doubt]) -> dict[str, object]:
    """What is in doubt on a link, and how long a takeover waits now. ``full_wait`` says why it waits in full, if so."""
    wait_ms, is_safe = link.fence.wait_ms(link.fence.lifetime_ms)
    return {
        "shards": sum(doubt.is_looking for doubt in doubts),
        "held_shards": sum(doubt.is_held for doubt in doubts),
        "events": sum(doubt.events for doubt in doubts),
        "wait_s": wait_ms / 1000,
        "wait_is_safe": is_safe,
        "full_wait": link.fence.distrusted(),
        "clock_offset_ms": link.fence.offset_ms(),
    }


def publish(telemetry: Telemetry, link: Link, doubts: Collection[Doubt]) -> None:
    """The same as gauges; of the wait only once the peer was asked."""
    telemetry.gauge("in_doubt_shards", sum(doubt.is_looking for doubt in doubts), link=link.name)
    telemetry.gauge("in_doubt_held_shards", sum(doubt.is_held for doubt in doubts), link=link.name)
    telemetry.gauge("in_doubt_events", sum(doubt.events for doubt in doubts), link=link.name)
    if link.fence.decided.is_set():
        wait_ms, _ = link.fence.wait_ms(link.fence.lifetime_ms)
        telemetry.gauge("in_doubt_wait_seconds", wait_ms / 1000, link=link.name)
        telemetry.gauge("peer_fences", not link.fence.distrusted(), link=link.name)
        telemetry.gauge("peer_clock_offset_ms", link.fence.offset_ms(), link=link.name)
