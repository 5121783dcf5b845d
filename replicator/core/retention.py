"""How old a record may be that its source surely still has, also when the retention was changed.

How it works: a longer retention brings nothing back. So what counts is a time since which nothing was trimmed, and that
never goes back: each time another retention is seen, it may have changed at any moment since the last look, so up to
now only the shorter of the two is taken for granted. From then on what is kept grows older with the clock, up to the
new retention.

Why it is safe: the first look of all knows of no retention before it and trusts in no more than `SHORTEST_MS`, the
least that a stream can have. Who trusts in too little asks the source once more than needed, and is told.
"""

from msgspec import Struct

SHORTEST_MS = 86_400_000
"""Of a Kinesis stream (Amazon Kinesis Data Streams, "Change the data retention period")."""
MARGIN_MS = 600_000
"""Of what is kept, or a tenth of it where that is less: then a record's being kept is no longer taken for granted."""


class Kept(Struct, frozen=True):
    """``retention_ms`` as it was last seen; of what arrived at ``since_ms`` or later, nothing was trimmed by then."""

    retention_ms: int
    since_ms: int

    def then(self, retention_ms: int, now_ms: int) -> "Kept":
        """After another look."""
        if retention_ms == self.retention_ms:
            return self
        return Kept(retention_ms, max(self.since_ms, now_ms - min(retention_ms, self.retention_ms)))

    def surely_ms(self, at_ms: float) -> float:
        """How old a record may have been at this time, that was kept for certain."""
        kept_ms = min(self.retention_ms, at_ms - self.since_ms)
        return kept_ms - min(MARGIN_MS, kept_ms / 10)


def first_look(retention_ms: int, now_ms: int) -> Kept:
    return Kept(retention_ms, now_ms - min(retention_ms, SHORTEST_MS))
