"""The read budget of one shard: evenly spaced calls, shared by everyone of ours who reads it.

How it works: a Kinesis shard serves five GetRecords a second to all its consumers together. The live reader, which
serves the links at normal lag, books the next free call whenever it wants one. Those who catch up book one after the
other, each when its turn has come: an interval behind the call of the one before.

Why it is safe: every call is booked, and bookings are an interval apart. The live reader never waits for more than one
call of another: there is at most one booking of those who catch up, and never one of a later time than the next free
call. So it has every other call when it wants it, and they have what it leaves.
"""


class ReadBudget:
    """Times are seconds on the caller's monotonic clock. ``per_s`` calls a second, no bursts.

    ``phase``, from 0 to 1, is the part of an interval by which a pause behind the first call moves all others.
    """

    def __init__(self, per_s: float, now_s: float, phase: float = 0.0) -> None:
        self._interval_s = 1.0 / per_s
        self._pause_s = phase * self._interval_s
        self._next_s = now_s
        self._turn_s = now_s

    def free_in_s(self, now_s: float) -> float:
        """How many seconds it is until a call is free that nobody has booked yet."""
        return max(0.0, self._next_s - now_s)

    def reserve_live(self, now_s: float) -> float:
        """Book one call of the live reader; answers how many seconds to wait before making it."""
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._interval_s + self._pause_s
        self._pause_s = 0.0
        return at_s - now_s

    def turn_s(self, now_s: float) -> float:
        """How many seconds those who catch up wait before one of them may book."""
        return max(0.0, self._turn_s - now_s)

    def reserve_behind(self, now_s: float) -> float:
        """Book one call of who catches up, whose turn has come; the wait is less than two intervals and the pause."""
        wait_s = self.reserve_live(now_s)
        self._turn_s = now_s + wait_s + self._interval_s
        return wait_s
