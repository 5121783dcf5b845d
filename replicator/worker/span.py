"""What a channel has under way: events as items, and runs of consecutive records as spans."""

from msgspec import Struct

from replicator.core.model import Position
from replicator.ports import Entry
from replicator.worker.prepare import Prepared


class Span(Struct, eq=False):
    """A run of records that is claimed, settled and passed by the watermark as one.

    ``batch`` and ``store`` name the claim, None when the claim store was away. ``is_marked`` when the store
    was told at a drain what of it is done. ``floor_ms`` is a time (peer's clock)
    before which none of its events was attempted, None when it has none to attempt. ``pending`` counts its events that
    are not done, and one more until all of them are known: a span of which nobody knows everything is never done.
    """

    end: Position
    oldest_ms: int
    pending: int = 1
    is_finished: bool = False
    is_marked: bool = False
    batch: int | None = None
    store: str | None = None
    floor_ms: int | None = None
    size_bytes: int = 0
    items: list["Item"] = []


class Item(Struct, eq=False):
    """One event on its way. ``index`` is its place in the span's claim; ``copies`` wait until it is done."""

    prepared: Prepared
    span: Span
    entry: Entry
    size_bytes: int
    index: int = 0
    attempts: int = 0
    is_done: bool = False
    copies: list["Item"] = []
