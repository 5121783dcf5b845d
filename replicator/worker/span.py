"""What a channel has under way: events as items, and runs of consecutive records as spans."""

from collections.abc import Sequence

from msgspec import Struct

from replicator.core.in_doubt import Attempts
from replicator.core.kpl import PACKED_EVENTS_MAX
from replicator.core.model import Position
from replicator.ports import ClaimSession, Entry
from replicator.worker.prepare import Prepared


class Span(Struct, eq=False):
    """A run of records that is claimed, settled and passed by the watermark as one.

    ``batch`` and ``session`` name the claim, None when the claim store was away. ``is_marked`` when that session
    told the store what of it is done, not before ``marked_s`` (of the loop). ``has_former_marks``: something of it was
    done by the marks of a former owner, which nobody makes anew. ``floor_ms`` is a time (peer's clock)
    before which none of its events was attempted, None when it has none to attempt. ``pending`` counts its events that
    are not done, and one more until all of them are known: a span of which nobody knows everything is never done.
    """

    end: Position
    oldest_ms: int
    pending: int = 1
    is_finished: bool = False
    is_marked: bool = False
    marked_s: float = 0.0
    has_former_marks: bool = False
    batch: int | None = None
    session: ClaimSession | None = None
    floor_ms: int | None = None
    size_bytes: int = 0
    items: list["Item"] = []


class Item(Struct, eq=False):
    """One event on its way. ``index`` is its place in the span's claim.

    ``is_held``: its key is, so it goes to quarantine unless it turns out to be done; ``is_put_away``: there it is.
    ``doubt``: attempts that may have stored it, without proof that they have not.
    ``packed``: those behind it in its lane that travel in its record now; ``packed_max``: how many it may hold.
    """

    prepared: Prepared
    span: Span
    entry: Entry
    size_bytes: int
    index: int = 0
    attempts: int = 0
    is_done: bool = False
    is_held: bool = False
    is_put_away: bool = False
    doubt: Attempts | None = None
    packed: Sequence["Item"] = ()
    packed_max: int = PACKED_EVENTS_MAX


def whole_end(records: Sequence[Prepared], begin: int, end: int) -> int:
    """Where a run from ``begin`` to about ``end`` ends with a whole record: the last such place, else the first behind.

    A run's end is a position, which stands behind a record with all its events; so one record with too many of them
    is a run by itself.
    """
    if end >= len(records):
        return len(records)
    sequence, last = records[end].record.sequence, end
    while last > begin and records[last - 1].record.sequence == sequence:
        last -= 1
    if last > begin:
        return last
    while end < len(records) and records[end].record.sequence == sequence:
        end += 1
    return end
