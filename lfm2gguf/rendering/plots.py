"""Plots for a page, coloured by its own style: curves over context, dots of runs.

Every plot has a fixed drawing width and scales with the page; words keep a readable size on a
phone because the drawing is narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from lfm2gguf.rendering.palette import curve_class
from lfm2gguf.rendering.svg import Scale, element, opened, points, round_up

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 44
FLOOR = HEIGHT - BOTTOM
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


def draw_curves(title: str, unit: str, data: Sequence[Curve]) -> str:
    """Draw curves over context length (logarithmic), from zero; bars show the spread."""
    return "".join(_curves(title, unit, data))


def _curves(title: str, unit: str, data: Sequence[Curve]) -> Iterator[str]:
    xs = sorted({point[0] for curve in data for point in curve.points})
    top = round_up(max(point[3] for curve in data for point in curve.points))
    across = Scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT, logarithmic=True)
    down = Scale(0, top, FLOOR, TOP)
    yield _opened(title, HEIGHT)
    yield element("text", unit, class_="unit", x=LEFT, y=15)
    for value in _quarters(top):
        y = down.at(value)
        yield element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
        yield element("text", _tick(value), class_="tick end", x=LEFT - 7, y=y + 4)
    for x in xs:
        text = f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"
        yield element("text", text, class_="tick mid", x=across.at(x), y=HEIGHT - 24)
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield element("text", "context (tokens)", class_="unit mid", x=middle, y=HEIGHT - 6)
    for i, curve in enumerate(data):
        yield from _curve(i, curve, unit, across, down)
    yield "</svg>"


def _curve(i: int, curve: Curve, unit: str, across: Scale, down: Scale) -> Iterator[str]:
    color = curve_class(i).split()[0]  # bars and dots are never dashed
    line = points((across.at(x), down.at(y)) for x, _, y, _ in curve.points)
    yield element("polyline", class_=f"line {curve_class(i)}", points=line)
    for x, low, y, high in curve.points:
        at = across.at(x)
        bar = {"x1": at, "x2": at, "y1": down.at(low), "y2": down.at(high)}
        yield element("line", class_=f"line thin {color}", **bar)
        yield opened("circle", class_=f"dot {color}", cx=at, cy=down.at(y), r=3.4)
        yield element("title", f"{curve.label}, {x:g}: {y:.5g} {unit}") + "</circle>"


def draw_dots(title: str, unit: str, data: Sequence[Dots]) -> str:
    """Draw the runs of each row as dots on a line, the median as a stroke, from zero."""
    return "".join(_dots(title, unit, data))


def _dots(title: str, unit: str, data: Sequence[Dots]) -> Iterator[str]:
    top = round_up(max(value for row in data for value in row.values))
    across = Scale(0, top, LABEL, WIDTH - 30)
    bottom = 22 + LINE * len(data)
    yield _opened(title, bottom + 44)
    for value in _quarters(top):
        x = across.at(value)
        yield element("line", class_="grid", x1=x, x2=x, y1=16, y2=bottom)
        yield element("text", _tick(value), class_="tick mid", x=x, y=bottom + 16)
    middle = (LABEL + WIDTH - 30) / 2
    yield element("text", unit, class_="unit mid", x=middle, y=bottom + 34)
    for i, row in enumerate(data):
        y = 16 + LINE * (i + 0.5)
        yield element("text", _cut(row.label), class_="tick end", x=LABEL - 8, y=y + 4)
        for value in row.values:
            yield opened("circle", class_="run", cx=across.at(value), cy=y, r=4.5)
            yield element("title", f"{value:.4g} {unit}") + "</circle>"
        x = across.at(row.middle)
        yield element("line", class_="median", x1=x, x2=x, y1=y - 9, y2=y + 9)
    yield "</svg>"


def _opened(title: str, height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'


def _quarters(top: float) -> list[float]:
    return [top * i / 4 for i in range(5)]


def _cut(label: str) -> str:
    room = int((LABEL - 10) / CHARACTER)
    return label if len(label) <= room else label[: room - 1] + "…"


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
