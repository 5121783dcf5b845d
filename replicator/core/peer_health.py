"""Whether a link may send to its peer now: open, or closed until a time after failures of whole requests.

How it works: a request that failed as a whole closes the link for a wait that grows with the failures in a row
(`core.backoff`); when the time has come it is open, and the first answer that is no failure forgets them all.

Why it is safe: health belongs to one link, so a peer that is away closes its own link only and no other waits. A closed
link opens by time alone, without anybody's word, so it can't stay closed for ever. Requests that were under way when it
closed tell of the same trouble, so they don't lengthen the wait, however many they were. It says when to try, never
what became of an event: that is found out for every request by itself.
"""

from msgspec import Struct

from replicator.core.backoff import delay_s


class PeerHealth(Struct):
    """What a link knows about its peer: failures in a row, and the time before which nothing is sent."""

    failures: int = 0
    closed_until_s: float = 0.0
    last_error: str = ""

    def failed(self, now_s: float, draw: float, error: str, *, base_s: float, max_s: float) -> None:
        """A request failed as a whole. Failures reported while the link is closed already are the same trouble."""
        self.last_error = error
        if now_s < self.closed_until_s:
            return
        self.failures += 1
        self.closed_until_s = now_s + delay_s(self.failures, draw, base_s=base_s, max_s=max_s)

    def succeeded(self) -> None:
        self.failures = 0
        self.closed_until_s = 0.0
        self.last_error = ""

    def wait_s(self, now_s: float) -> float:
        """How long the link still has to wait; 0 when it may send."""
        return max(0.0, self.closed_until_s - now_s)
