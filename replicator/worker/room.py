"""How much one (link, shard) may have under way: its share of the worker's memory, and a number of spans."""

from collections.abc import Callable

from replicator.core.memory import run_end
from replicator.core.model import After
from replicator.worker.link import LinkSettings
from replicator.worker.settlement import Settlement
from replicator.worker.shard_log import Batch
from replicator.worker.span import whole_end


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

    def cut(self, page: Batch) -> tuple[Batch, Batch | None]:
        """The first run of whole records that fits, and the rest."""
        records_max = self._settings.span_records_max
        sizes = [len(prepared.record.data) for prepared in page.records[:records_max]]
        stop = whole_end(page.records, 0, run_end(sizes, 0, records_max, self.run_bytes_max))
        if stop >= len(page.records):
            return page, None
        run = Batch(page.records[:stop], After(page.records[stop - 1].record.sequence), is_tip=False)
        return run, Batch(page.records[stop:], page.after, page.is_tip)

    def _open_bytes_max(self) -> int:
        return min(self._settings.open_bytes_max, self._share_bytes())
