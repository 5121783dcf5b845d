"""The pages of one shard that are kept for its links, one after the other."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from replicator.core.lending import NEVER_S, Account
from replicator.core.memory import run_end
from replicator.core.model import After, Position, SequenceNumber, ShardEnd
from replicator.worker.prepare import Prepared
from replicator.worker.span import whole_end

LONG_AGO_S, ALWAYS_S = float("-inf"), float("inf")


class Segment(Struct):
    """A page of records between two positions of the shard, ``sizes`` bytes each. What else there is to know of it: see
    `Batch`."""

    before: Position
    records: tuple[Prepared, ...]
    sizes: list[int]
    after: Position
    size_bytes: int
    quiet_s: float = LONG_AGO_S
    read_s: float = ALWAYS_S
    is_from_lake: bool = False


class Batch(Struct, frozen=True):
    """What a link gets: the records behind its position, and their ``sizes`` in bytes, measured once for all links.

    ``is_tip``: when they were read, nothing stored in the shard followed them. ``quiet_s`` is the loop time of the last
    look before that found nothing behind the position, as far as it was seen; `ALWAYS_S` when what is before and behind
    the position was read together, so that nothing was between. ``read_s``: when they were read, `ALWAYS_S` for now.
    ``is_own``: they were read for this link alone. ``is_from_lake``: see `ports.Page`.
    """

    records: Sequence[Prepared]
    after: Position
    is_tip: bool
    quiet_s: float = LONG_AGO_S
    read_s: float = ALWAYS_S
    is_own: bool = False
    is_from_lake: bool = False
    sizes: Sequence[int] = ()

    def run_sizes(self, records_max: int) -> Sequence[int]:
        """Of the records of the first run, were there as much room as it likes."""
        return self.sizes[: self._even(records_max)]

    def cut(self, sizes: Sequence[int], bytes_max: int) -> tuple["Batch", "Batch | None"]:
        """The first run of whole records that fits a span, and the rest. ``sizes`` are its `run_sizes`."""
        stop = whole_end(self.records, 0, run_end(sizes, 0, len(sizes), bytes_max))
        if stop >= len(self.records):
            return self, None
        place = After(self.records[stop - 1].record.sequence)
        run = replace(self, records=self.records[:stop], sizes=self.sizes[:stop], after=place, is_tip=False)
        rest = replace(self, records=self.records[stop:], sizes=self.sizes[stop:], quiet_s=ALWAYS_S, read_s=ALWAYS_S)
        return run, rest

    def _even(self, records_max: int) -> int:
        """As many records as make all runs of these equally long: a small one costs as much as a full one."""
        runs = -(-len(self.records) // records_max)
        return -(-len(self.records) // runs) if runs else 0


class Window:
    """``readers`` tell what each link takes next. What all of them have passed stays only while it needs no loan."""

    def __init__(self, account: Account) -> None:
        self._account = account
        account.give_up = self.clear
        self._pages: deque[Segment] = deque()
        self.readers: list[Callable[[], Position]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._pages)

    def append(self, page: Segment, bytes_max: int) -> None:
        """Behind the others, of which the oldest go where they are too much together."""
        self._pages.append(page)
        self._change(page.size_bytes)
        while self.size_bytes > bytes_max and len(self._pages) > 1:
            self._drop_oldest()

    def find(self, position: Position) -> tuple[Segment, int] | None:
        """The page in which, and the index of the record in it with which, what follows the position begins."""
        for page in self._pages:
            if page.before == position:
                return page, 0
            if isinstance(position, After) and _covers(page, position.sequence):
                return page, bisect_right(page.records, position.sequence, key=_sequence)
        return None

    def drop_passed(self) -> None:
        """Give back the loan for pages that no link takes any more."""
        if not self.readers or not self._account.lent_bytes:
            return
        wanted = [reader() for reader in self.readers]
        while self._pages and self._account.lent_bytes and not any(_serves(self._pages[0], each) for each in wanted):
            self._drop_oldest()

    def clear(self) -> None:
        self._pages.clear()
        self._change(-self.size_bytes)

    def _drop_oldest(self) -> None:
        self._change(-self._pages.popleft().size_bytes)

    def _change(self, count: int) -> None:
        self.size_bytes += count
        if not self._pages:
            self._account.term_s = NEVER_S
        self._account.add(count)


def _sequence(prepared: Prepared) -> SequenceNumber:
    return prepared.record.sequence


def _serves(page: Segment, position: Position) -> bool:
    return page.before == position or (isinstance(position, After) and _covers(page, position.sequence))


def _covers(page: Segment, sequence: SequenceNumber) -> bool:
    """Whether the records behind ``sequence`` begin inside this page."""
    if isinstance(page.before, After) and sequence < page.before.sequence:
        return False
    if not page.records:
        return isinstance(page.before, After)
    if not isinstance(page.before, After) and sequence < page.records[0].record.sequence:
        return False
    return sequence < page.records[-1].record.sequence or (
        page.after == ShardEnd() and sequence == page.records[-1].record.sequence
    )
