"""How much one (link, shard) may have under way: its share of the worker's memory, and a number of spans."""

from collections.abc import Callable

from replicator.worker.link import LinkSettings
from replicator.worker.settlement import Settlement


class Room:
    """Two runs of records fit, so that one is taken in while the other is sent; one fits where nothing is open."""

    def __init__(self, settings: LinkSettings, settlement: Settlement, share_bytes: Callable[[], int]) -> None:
        self._settings = settings
        self._settlement = settlement
        self._share_bytes = share_bytes

    @property
    def is_left(self) -> bool:
        """Whether another run may be taken in."""
        spans = self._settlement.open
        return not spans or (self.left_bytes >= self.run_bytes_max and len(spans) < self._settings.open_spans_max)

    @property
    def left_bytes(self) -> int:
        return self._open_bytes_max() - self._settlement.open_bytes

    @property
    def run_bytes_max(self) -> int:
        return self._open_bytes_max() // 2

    def _open_bytes_max(self) -> int:
        return min(self._settings.open_bytes_max, self._share_bytes())
