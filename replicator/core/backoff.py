"""How long to wait before trying again: exponential with full jitter, bounded on both sides.

How it works: the bound doubles with every failure in a row up to a maximum; the wait is a uniform draw between a tenth
of the bound and the bound. The draw is an argument, so the rule stays pure.

Why it is safe: every wait is finite, so what failed without effect is tried again as long as it is owed (no loss), and
none is below a tenth of its bound, so a run of small draws is no busy loop. Full jitter spreads the retries of many
workers best: see the AWS Architecture Blog, "Exponential Backoff And Jitter". A wait decides only when an attempt is
made, never what may overtake it: the lane is kept meanwhile.
"""


def delay_s(attempt: int, draw: float, *, base_s: float, max_s: float) -> float:
    """The wait after failure number ``attempt`` (from 1); ``draw`` is uniform in [0, 1)."""
    bound = min(max_s, base_s * 2.0 ** min(attempt - 1, 32))
    return bound * (0.1 + 0.9 * draw)
