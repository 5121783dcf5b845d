"""From done to durable: a span is settled in the claim store when all its events are done, then the watermark moves."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from replicator.core.model import After, Position, SequenceNumber
from replicator.core.watermark import Watermark
from replicator.worker.claiming import Claiming
from replicator.worker.span import Item, Span

SETTLE_PARTLY_S = 2.0


class Settlement:
    """The open spans of one (link, shard), in source order, and the watermark behind the settled ones."""

    def __init__(
        self,
        claiming: Claiming,
        position: Position,
        on_settled: Callable[[Span], None],
        on_passed: Callable[[Position], None] | None = None,
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """``on_passed`` is told where the watermark stands now; ``is_wanted``: others wait for what spans hold."""
        self._claiming = claiming
        self._on_settled = on_settled
        self._on_passed = on_passed
        self._is_wanted = is_wanted
        self._watermark: Watermark[Span] = Watermark(position)
        self._finished: asyncio.Queue[Span] = asyncio.Queue()
        self._progress: asyncio.Future[None] | None = None
        self.open_bytes = 0
        self._waiting_since_s = 0.0

    @property
    def position(self) -> Position:
        return self._watermark.position

    @property
    def open(self) -> deque[Span]:
        """Spans that are not settled, oldest first."""
        return self._watermark.open

    @property
    def partly_done(self) -> list[Span]:
        """Spans of which something is done, maybe all, though the watermark has not passed them."""
        return [span for span in self.open if span.is_finished or any(item.is_done for item in span.items)]

    def start_at(self, position: Position) -> None:
        """Where the watermark stands before anything is opened."""
        self._watermark.position = position

    def age_s(self, now_s: float) -> float:
        """How long the watermark has been waiting for its next span to be done; 0 when nothing is open."""
        return max(0.0, now_s - self._waiting_since_s) if self.open else 0.0

    def add(self, span: Span) -> None:
        """Open the span that follows the last one; `opened` tells when all its events are known."""
        if not self.open:
            self._waiting_since_s = asyncio.get_running_loop().time()
        self._watermark.add(span)

    def opened(self, span: Span) -> None:
        """The span's size and number of events are known now; one without events is done."""
        self.open_bytes += span.size_bytes
        span.pending -= 1
        if span.pending == 0:
            self._finished.put_nowait(span)

    def close(self, items: Iterable[Item]) -> None:
        """The events are done."""
        for item in items:
            item.is_done = True
            span = item.span
            span.pending -= 1
            if span.pending == 0:
                self._finished.put_nowait(span)

    async def run(self) -> None:
        """Settle what is done until cancelled. Raises Fenced."""
        while True:
            span = await self._finished.get()
            # A queue gives out what follows in a group when this is deleted there, which is when it is settled.
            may_wait = not self._is_awaited and self._on_passed is None and not self._is_wanted()
            span.marked_s = asyncio.get_running_loop().time()
            span.is_marked = await self._claiming.settle(
                span.session, span.batch, _put_away(span), self._mark(), may_wait=may_wait
            )
            span.is_finished = True
            self.open_bytes -= span.size_bytes
            self._on_settled(span)
            span.items = []  # they refer to the span: without the cycle they are freed at once
            if self._watermark.advance():
                if self._on_passed is not None:
                    self._on_passed(self._watermark.position)
                self._waiting_since_s = asyncio.get_running_loop().time()
            if self._progress is not None and not self._progress.done():
                self._progress.set_result(None)

    def progress(self) -> asyncio.Future[None]:
        """Done when a span was settled after the call; until then no settlement waits for company.

        For one who waits at a time; who waits no more cancels it.
        """
        self._progress = asyncio.get_running_loop().create_future()
        return self._progress

    @property
    def _is_awaited(self) -> bool:
        return self._progress is not None and not self._progress.done()

    async def settle_partly(self) -> bool:
        """Tell the store what of the unfinished spans is done, so that the next owner need not ask the peer.

        False when there was no time for it.
        """
        try:
            async with asyncio.timeout(SETTLE_PARTLY_S):
                for span in self.open:
                    await self._settle_part(span)
        except TimeoutError:
            return False
        self._watermark.advance()
        return True

    async def _settle_part(self, span: Span) -> None:
        if span.is_marked:
            return
        undone = [item.index for item in span.items if not item.is_done or item.is_put_away]
        if span.pending == 0 or len(undone) < len(span.items):
            span.marked_s = asyncio.get_running_loop().time()
            span.is_marked = await self._claiming.settle(span.session, span.batch, undone, self._mark(), may_wait=False)
            span.is_finished = span.pending == 0

    def _mark(self) -> SequenceNumber:
        position = self._watermark.position
        return position.sequence if isinstance(position, After) else SequenceNumber(0)


def _put_away(span: Span) -> list[int]:
    """Places of events in quarantine: who writes them again later must not find that they were done."""
    return [item.index for item in span.items if item.is_put_away]
