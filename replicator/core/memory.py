"""How the memory of one worker is divided among all that waits in it.

How it works: half of the budget is for pages that were read and are kept for the links of a shard (windows), half for
events that are under way (queues). Each half is divided into even shares: the windows' among the shards that are read
now, the queues' among the (link, shard) pairs that are served now. Who does not use its share lends most of it to
others of its kind (`core.lending`); who has nothing may always take one thing (a page, a run of records, at least one
record), or nobody could ever move.

Why it is safe: what a link may hold depends on how many shards and links there are, never on what other links hold. So
a link whose peer is down fills its own shares and stops there: it can neither take what a live link needs nor grow with
the length of the outage; what it leaves in the source is read again later. The sum of all is the budget, and above it
at most one thing each.
"""

from collections.abc import Sequence

COPIES = 3
"""An event's bytes are in memory up to three times: as they were read, cut for the tag, and as they leave."""
FIRST_RECORD_BYTES = 10 * 1024
"""What a record is taken for in size before the first was seen."""


def share_bytes(budget_bytes: int, holders: int) -> int:
    """What one of so many windows, or of so many queues, may hold in bytes of events."""
    return budget_bytes // 2 // COPIES // max(1, holders)


def records_within(share: int, seen_bytes: int, seen_records: int, records_max: int) -> int:
    """How many records to ask for, so that a page of records like those seen last fits the share; at least one."""
    mean = seen_bytes / seen_records if seen_records else FIRST_RECORD_BYTES
    return max(1, min(records_max, int(share / max(1.0, mean))))


def run_end(sizes: Sequence[int], start: int, records_max: int, bytes_max: int) -> int:
    """The end of a run of records from ``start`` on, within both bounds but for its first record."""
    end, room = start, bytes_max
    stop = min(len(sizes), start + records_max)
    if sum(sizes[start:stop]) <= bytes_max:
        return max(start, stop)
    while end < stop:
        room -= sizes[end]
        if room < 0 and end > start:
            break
        end += 1
    return end
