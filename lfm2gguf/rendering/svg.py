"""Plots as inline SVG, coloured by the page's own style: curves over context, dots of runs.

Every plot has a fixed drawing width and scales with the page; words keep a readable size on a
phone because the drawing is narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 44
INNER, DROP = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
COLORS = 8  # classes c0 to c7 of the page's style
LABEL, LINE, CHARACTER = 150, 24, 6.6  # of the dot plot: room for names, height, width of a letter


@dataclass(frozen=True)
class Curve:
    """Points ``(x, low, median, high)``; ``low`` and ``high`` equal the median without a spread."""

    label: str
    points: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True)
class Dots:
    """The values of one row's runs."""

    label: str
    values: Sequence[float]
    middle: float


def curves(title: str, unit: str, data: Sequence[Curve]) -> str:
    """Draw curves over context length (logarithmic), from zero; bars show the spread."""
    return "".join(_curves(title, unit, data))


def _curves(title: str, unit: str, data: Sequence[Curve]) -> Iterator[str]:
    xs = sorted({point[0] for curve in data for point in curve.points})
    top = _round_up(max(point[3] for curve in data for point in curve.points))
    low, high = math.log2(xs[0]), math.log2(xs[-1])

    def across(x: float) -> float:
        return LEFT + (INNER * (math.log2(x) - low) / (high - low) if high > low else INNER / 2)

    def down(y: float) -> float:
        return TOP + DROP * (1 - y / top)

    yield _opened(title, HEIGHT)
    yield f'<text class="unit" x="{LEFT}" y="15">{escape(unit)}</text>'
    for i in range(5):
        y = down(top * i / 4)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick end" x="{LEFT - 7}" y="{y + 4:.1f}">{_tick(top * i / 4)}</text>'
    for x in xs:
        text = f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"
        yield f'<text class="tick mid" x="{across(x):.1f}" y="{HEIGHT - 24}">{text}</text>'
    yield f'<text class="unit mid" x="{LEFT + INNER / 2}" y="{HEIGHT - 6}">context (tokens)</text>'
    for i, curve in enumerate(data):
        color = f"c{i % COLORS}"
        line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, _, y, _ in curve.points)
        dash = " dashed" if i >= COLORS else ""
        yield f'<polyline class="line {color}{dash}" points="{line}"/>'
        for x, bottom, y, upper in curve.points:
            at = across(x)
            yield (
                f'<line class="line thin {color}" x1="{at:.1f}" x2="{at:.1f}" '
                f'y1="{down(bottom):.1f}" y2="{down(upper):.1f}"/>'
                f'<circle class="dot {color}" cx="{at:.1f}" cy="{down(y):.1f}" r="3.4">'
                f"<title>{escape(curve.label)}, {x:g}: {y:.5g} {escape(unit)}</title></circle>"
            )
    yield "</svg>"


def dots(title: str, unit: str, data: Sequence[Dots]) -> str:
    """Draw the runs of each row as dots on a line, the median as a stroke, from zero."""
    return "".join(_dots(title, unit, data))


def _dots(title: str, unit: str, data: Sequence[Dots]) -> Iterator[str]:
    top = _round_up(max(value for row in data for value in row.values))
    height = 30 + LINE * len(data) + 36
    width = WIDTH - LABEL - 30

    def across(value: float) -> float:
        return LABEL + width * value / top

    yield _opened(title, height)
    bottom = 22 + LINE * len(data)
    for i in range(5):
        x = across(top * i / 4)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{bottom}"/>'
        yield f'<text class="tick mid" x="{x:.1f}" y="{bottom + 16}">{_tick(top * i / 4)}</text>'
    yield f'<text class="unit mid" x="{LABEL + width / 2}" y="{bottom + 34}">{escape(unit)}</text>'
    for i, row in enumerate(data):
        y = 16 + LINE * (i + 0.5)
        yield f'<text class="tick end" x="{LABEL - 8}" y="{y + 4:.1f}">{_cut(row.label)}</text>'
        for value in row.values:
            yield (
                f'<circle class="run" cx="{across(value):.1f}" cy="{y:.1f}" r="4.5">'
                f"<title>{value:.4g} {escape(unit)}</title></circle>"
            )
        x = across(row.middle)
        yield f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"/>'
    yield "</svg>"


def _opened(title: str, height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'


def _cut(label: str) -> str:
    room = int((LABEL - 10) / CHARACTER)
    return escape(label if len(label) <= room else label[: room - 1] + "…")


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _round_up(value: float) -> float:
    """The next of 1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8 times a power of ten: quarters are short."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    steps = (1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8, 10)
    return float(next(step * power for step in steps if value <= step * power * (1 + 1e-9)))
