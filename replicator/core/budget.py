"""The read budget of one shard: evenly spaced calls, shared by everyone of ours who reads it.

A Kinesis shard serves five GetRecords a second to all its consumers together. The live reader, which serves the
links at normal lag, has priority: while it wants tokens, readers that catch up get at most every other one.
"""


class ReadBudget:
    """Times are seconds on the caller's monotonic clock. ``per_s`` calls a second, no bursts."""

    def __init__(self, per_s: float, now_s: float) -> None:
        self._interval_s = 1.0 / per_s
        self._next_s = now_s
        self._live_seen_s = float("-inf")
        self._next_behind_s = now_s

    def reserve(self, now_s: float, *, is_live: bool) -> float:
        """Book one call; answers how many seconds to wait before making it."""
        if is_live:
            self._live_seen_s = now_s
            return self._book(now_s)
        earliest_s = max(now_s, self._next_behind_s)
        wait_s = self._book(earliest_s) + earliest_s - now_s
        is_contended = now_s - self._live_seen_s < 2 * self._interval_s
        self._next_behind_s = now_s + wait_s + self._interval_s * (2 if is_contended else 1)
        return wait_s

    def _book(self, now_s: float) -> float:
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._interval_s
        return at_s - now_s
