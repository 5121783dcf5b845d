"""Fuller requests: what is to be sent waits a while for what follows, where a link is set so."""


class Linger:
    """When what waits on one (link, shard) may be taken. With ``linger_s`` 0: always at once. Times are the loop's."""

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._until_s: float | None = None
        self.is_hurried = False
        """Whether nothing can follow for now, so that nothing waits for it."""

    def begin(self, now_s: float) -> None:
        """Something waits now, and nothing waited before; or something is left that did not fit."""
        if self._linger_s:
            self._until_s = now_s + self._linger_s

    def until_s(self, now_s: float, *, is_enough: bool) -> float | None:
        """When to look again; None: take it now."""
        if self._until_s is None or self.is_hurried or is_enough or now_s >= self._until_s:
            return None
        return self._until_s
