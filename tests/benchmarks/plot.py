"""CPU per event as bars in an SVG of its own: no library, no script, readable on light and dark pages."""

from collections.abc import Mapping
from html import escape

from tests.benchmarks.report import NAIVE, shown

WIDTH, NAME, VALUE = 860, 240, 130
BAR, GAP, HEAD, TITLE = 16, 5, 34, 46
COLOURS = ("#8c8c8c", "#c9842b", "#b0557a", "#1f77b4", "#4fa3d8", "#2a9d6f", "#7a6fc2")


def cpu_bars(cases: Mapping[str, Mapping[str, float]], subtitle: str) -> str:
    """One group of bars for each case, one bar for each contender, all on one scale; empty without figures."""
    longest = max((value for bars in cases.values() for value in bars.values()), default=1.0)
    contenders = list(dict.fromkeys(name for bars in cases.values() for name in bars))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(contenders)}
    parts, top = [], TITLE
    for case, bars in cases.items():
        top += HEAD
        parts.append(_text(0, top - 8, case, "case"))
        for name, value in bars.items():
            width = (WIDTH - NAME - VALUE) * value / longest
            parts += _bar(top, name, width, colours[name], _label(value, bars.get(NAIVE)))
            top += BAR + GAP
    return _svg(
        top + GAP, [_text(0, 16, "CPU, microseconds an event", "case"), _text(0, 34, subtitle, "small"), *parts]
    )


def _label(value: float, naive: float | None) -> str:
    return shown(value) if naive is None or naive == value else f"{shown(value)}   {naive / value:.1f}x less"


def _bar(top: float, name: str, width: float, colour: str, label: str) -> list[str]:
    middle = top + BAR - 4
    return [
        _text(NAME - 8, middle, name, "name"),
        f'<rect x="{NAME}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
        _text(NAME + width + 6, middle, label, "small"),
    ]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _svg(height: float, parts: list[str]) -> str:
    style = (
        "text{font:12px sans-serif;fill:#777}.case{font-weight:bold;font-size:13px}"
        ".name{text-anchor:end}.small{font-size:11px;white-space:pre}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}">'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>"]) + "\n"
