"""What is known of a peer's clock: bounds from its answers, carried on by our own monotonic clock.

How it works: every answer's Date header bounds the peer's clock at the moment it came. Between answers the bounds are
carried on and widened by what our clock may run wrong. A new answer narrows them. Our wall clock plays no part.

Why the earliest bound may date requests: it is never ahead of the peer's clock, so a request dated with it is no
younger than it says. Two things could make it so, and both are met:

- The peer's clock went back, or its machines disagree. The lower bound is taken at once, and for ``window_ms`` the
  clock
  is not called steady: requests dated before may live longer than they say, so whoever waits for them waits in full.
- The peer's clock seems to have jumped ahead. Then this process may have stood still without its monotonic clock
  noticing
  (a paused virtual machine), and what it believes of its leases is as old as what it believes of the peer. So until
  ``believe_after_s`` have passed, longer than a lease is believed in, requests go on being dated by the old bounds: the
  peer refuses them, as it must if others own the shard by now.
"""

from msgspec import Struct

DRIFT = 0.0005
"""How wrong a monotonic clock may run: 500 ppm, the most that NTP slews a clock (RFC 5905, and Linux's adjtimex)."""


class PeerTime(Struct, frozen=True):
    """The peer's clock at ``at_s`` of our monotonic clock is between these, both included."""

    earliest_ms: int
    latest_ms: int
    at_s: float

    def later(self, now_s: float) -> "PeerTime":
        """Carried on; a time before ``at_s`` is taken for ``at_s``."""
        ms = max(0.0, now_s - self.at_s) * 1000
        return PeerTime(self.earliest_ms + int(ms * (1 - DRIFT)), self.latest_ms + int(ms * (1 + DRIFT)) + 1, now_s)

    def narrowed(self, other: "PeerTime") -> "PeerTime":
        """Both are true at one moment; where they contradict each other, what is between them may be."""
        earliest = max(self.earliest_ms, other.earliest_ms)
        latest = min(self.latest_ms, other.latest_ms)
        return PeerTime(min(earliest, latest), max(earliest, latest), self.at_s)


class PeerClock:
    """Of one peer. ``tolerance_ms`` is how far answers may contradict each other unnoticed."""

    def __init__(self, *, tolerance_ms: int, window_ms: int, believe_after_s: float) -> None:
        self._tolerance_ms = tolerance_ms
        self._window_s = window_ms / 1000
        self._believe_after_s = believe_after_s
        self._known: PeerTime | None = None
        self._ahead: PeerTime | None = None
        self._ahead_since_s = 0.0
        self._unsteady_until_s: float | None = None

    def take(self, answer: PeerTime, now_s: float) -> None:
        """What an answer of the peer says, at ``now_s``."""
        self._believe(now_s)
        if self._known is None:
            self._known = answer
            return
        known, said = self._known.later(now_s), answer.later(now_s)
        if said.earliest_ms > known.latest_ms + self._tolerance_ms:
            self._ahead_since_s = self._ahead_since_s if self._ahead is not None else now_s
            self._ahead = said
            return
        self._ahead = None
        if said.latest_ms < known.earliest_ms - self._tolerance_ms:
            self._unsteady_until_s = now_s + self._window_s
            self._known = said
        else:
            self._known = known.narrowed(said)

    def at(self, now_s: float) -> PeerTime | None:
        """None before the first answer."""
        self._believe(now_s)
        if self._known is None:
            return None
        known = self._known.later(now_s)
        if self._ahead is None:
            return known
        return PeerTime(known.earliest_ms, self._ahead.later(now_s).latest_ms, now_s)

    def is_steady(self, now_s: float) -> bool:
        """Whether the answers fit together, and have done so for as long as a request may live."""
        is_back = self._unsteady_until_s is not None and now_s < self._unsteady_until_s
        return self._ahead is None and not is_back

    def _believe(self, now_s: float) -> None:
        if self._ahead is not None and now_s - self._ahead_since_s >= self._believe_after_s:
            self._known, self._ahead = self._ahead, None
