"""How long to wait before trying again: exponential with full jitter, bounded; and a peer's health over time.

Full jitter (a uniform draw below the exponential bound) spreads the retries of many workers best: see the AWS
Architecture Blog, "Exponential Backoff And Jitter". The draw is an argument, so the rule stays pure.
"""

from msgspec import Struct


def delay_s(attempt: int, draw: float, *, base_s: float, max_s: float) -> float:
    """The wait after failure number ``attempt`` (from 1); ``draw`` is uniform in [0, 1).

    Never below a tenth of the bound, so that a run of small draws is no busy loop.
    """
    bound = min(max_s, base_s * 2.0 ** min(attempt - 1, 32))
    return bound * (0.1 + 0.9 * draw)


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
