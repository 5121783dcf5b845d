"""What a run has found: sections with a table each, for the terminal, as JSON and as the source of the plot."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

Cell = str | float | int | None
NAIVE = "naive aioboto3 loop"


@dataclass(frozen=True, slots=True)
class Section:
    """``bars`` are what the plot shows: microseconds of CPU an event by case and contender."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    data: object = None
    bars: dict[str, dict[str, float]] = field(default_factory=dict)

    def print(self, console: Console) -> None:
        console.print(self._table())
        if self.note:
            console.print(self.note, highlight=False)

    def _table(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            is_text = all(isinstance(row[number], str) for row in self.rows)
            table.add_column(column, justify="left" if is_text else "right")
        for row in self.rows:
            table.add_row(*map(shown, row))
        return table


def shown(cell: Cell) -> str:
    """Three digits that say something, thousands separated; "-" for what there is not."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def ratio(naive: float | None, this: float) -> str | None:
    """How many times less than the naive loop; None without one."""
    return None if naive is None else f"{naive / this:.1f}x"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above (nearest rank). Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> str:
    return f"{shown(min(values))} .. {shown(max(values))}"
