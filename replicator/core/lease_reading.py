"""How often a worker reads the lease rows, and whether from the table or from what another worker posted of it.

How it works: what all workers of a region together read has a stated bound. As long as everybody may read all rows
every ``renew_s`` within it, everybody does. Beyond that one worker in turn reads the table and posts it
(`core.bulletin`), and where the posts alone would be too much as well, all read less often. Renewals have a period of
their own and know nothing of this.

Why it is right: the more rarely somebody looks, the later a lease is seen to have expired, never too early: a row that
changed between two looks is alive, one that did not has been unchanged for all of the time between.
"""

from math import ceil

from msgspec import Struct

from replicator.core.bulletin import BULLETIN_BYTES_MAX
from replicator.core.leasing import LeaseSettings

ROW_BYTES, LINK_BYTES = 150, 140
"""Of a lease row without checkpoints, and of each link's; measured, with names as ECS gives them: 140 and 127."""
POSTED_ROW_BYTES = 12
"""Of a row in a bulletin; measured: 9.4 with 10,000 rows of 500 workers."""
UNIT_BYTES = 4096
"""DynamoDB: one read unit is 4 KB read consistently, or 8 KB eventually consistently."""
SHARDS_A_WORKER = 100
"""No fleet has fewer workers than this makes of its shards: so a worker that sees nobody yet expects as many."""
DESCRIPTIONS_PER_S = 5.0
"""Of all workers of a region together; AWS takes 20 DescribeStreamSummary a second from an account."""


class Pace(Struct, frozen=True):
    """``is_shared``: rows come from bulletins. ``list_every``: the source's shards are listed every so many rounds."""

    is_shared: bool
    period_s: float
    list_every: int


def pace(rows: int, links: int, workers: int, settings: LeaseSettings) -> Pace:
    """What suits a source with so many lease rows, read by so many workers."""
    fleet = max(workers, rows / SHARDS_A_WORKER, 1)
    table = listing_units(rows, links)
    is_shared = fleet * table > settings.read_units_per_s * settings.renew_s and posted_bytes(rows) < BULLETIN_BYTES_MAX
    units = table + fleet * posted_bytes(rows) / UNIT_BYTES / 2 if is_shared else fleet * table
    period_s = max(settings.renew_s, units / settings.read_units_per_s)
    return Pace(is_shared, period_s, max(settings.list_every, ceil(fleet / DESCRIPTIONS_PER_S / period_s)))


def listing_units(rows: int, links: int) -> float:
    """Read units of one consistent reading of the whole table."""
    return rows * (ROW_BYTES + links * LINK_BYTES) / UNIT_BYTES


def posted_bytes(rows: int) -> int:
    return rows * POSTED_ROW_BYTES
