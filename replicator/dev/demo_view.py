"""What the demo shows while it runs: a live table on a terminal, plain lines everywhere else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.table import Table

from replicator.dev.demo_monitor import Row

REDRAW_S = 0.5
LINE_S = 5.0
COLOURS = {"up": "green", "down": "red"}


class View:
    """Says what happens, with the seconds since it was made, and draws the links."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start_s = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(
            f"[dim]{time.monotonic() - self._start_s:5.1f} s[/dim]  {text}", highlight=False, soft_wrap=True
        )

    @asynccontextmanager
    async def showing(self, rows: Callable[[], Sequence[Row]]) -> AsyncIterator[None]:
        """Draw the links until the block ends."""
        show = self._live(rows) if self.console.is_terminal else self._lines(rows)
        task = asyncio.create_task(show)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _live(self, rows: Callable[[], Sequence[Row]]) -> None:
        with Live(links_table(rows()), console=self.console, auto_refresh=False) as live:
            while True:
                live.update(links_table(rows()), refresh=True)
                await asyncio.sleep(REDRAW_S)

    async def _lines(self, rows: Callable[[], Sequence[Row]]) -> None:
        while True:
            await asyncio.sleep(LINE_S)
            self.say(links_line(rows()))


def links_table(rows: Sequence[Row]) -> Table:
    table = Table(title="links")
    for name in ("region", "peer"):
        table.add_column(name)
    for name in ("events", "events/s", "lag"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for row in rows:
        state = f"[{COLOURS.get(row.state, 'yellow')}]{row.state}[/]"
        table.add_row(row.region, row.peer, f"{row.forwarded:,}", f"{row.rate:,.0f}", lag_text(row), state)
    return table


def links_line(rows: Sequence[Row]) -> str:
    """One line for a log: totals, and every link that is not up by name."""
    total = sum(row.forwarded for row in rows)
    rate = sum(row.rate for row in rows)
    lag_ms = max((row.lag_ms for row in rows if row.lag_ms is not None), default=None)
    lag = "no data" if lag_ms is None else f"{lag_ms / 1000:.1f} s"
    troubled = [f"{row.region} -> {row.peer} {row.state}" for row in rows if row.state != "up"]
    text = f"forwarded {total:,} ({rate:,.0f}/s), worst lag {lag}"
    return f"{text}; {', '.join(troubled)}" if troubled else text


def lag_text(row: Row) -> str:
    return "no data" if row.lag_ms is None else f"{row.lag_ms / 1000:.1f} s"
