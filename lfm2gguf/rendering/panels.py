"""A picture of its own: panels of curves beside each other, with a legend below.

Every panel has a linear axis across and a logarithmic one upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lfm2gguf.rendering.svg import Scale, decades, element, opened, points, ticks

COLORS = ("#3b6fb6", "#d1622b", "#3a8f5c", "#8a5fb0", "#b8912a", "#c2506f", "#3f9aa8", "#6b6b6b",
          "#8c4f3a", "#5d7f2f")  # fmt: skip
WIDTH, HEIGHT, TOP, BOTTOM = 520, 330, 56, 46
PANEL, MARGIN = 400, 78


@dataclass(frozen=True)
class Line:
    """One line of a panel: as many ``x`` as ``y``."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Lines, and what their axes show; colours go by the order of the lines."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def line_color(i: int) -> str:
    """Return the colour of line ``i`` of every panel."""
    return COLORS[i % len(COLORS)]


def draw_panels(panels: Sequence[Panel], legend: Sequence[str]) -> str:
    """Draw panels side by side, with a word for each line."""
    return "\n".join(_picture(panels, legend))


def _picture(panels: Sequence[Panel], legend: Sequence[str]) -> Iterator[str]:
    below = TOP + HEIGHT + BOTTOM + 12
    width, height = len(panels) * WIDTH, below + 20 * math.ceil(len(legend) / 2) + 14
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    yield element("rect", width=width, height=height, fill="#ffffff")
    for i, panel in enumerate(panels):
        yield opened("g", transform=f"translate({i * WIDTH + MARGIN},{TOP})")
        yield from _panel(panel)
        yield "</g>"
    for i, label in enumerate(legend):
        x, y = MARGIN + (i % 2) * WIDTH, below + 20 * (i // 2)
        yield element("rect", x=x, y=y - 5, width=18, height=4, fill=line_color(i))
        yield element("text", label, x=x + 26, y=y + 1, fill="#333")
    yield "</svg>"


def _panel(panel: Panel) -> Iterator[str]:
    low, high = _range([x for line in panel.lines for x in line.x])
    across = Scale(low, high, 0, PANEL)
    least, most = decades(y for line in panel.lines for y in line.y)
    down = Scale(10.0**least, 10.0**most, HEIGHT, 0, logarithmic=True)
    title = {"font_size": 15, "font_weight": 600, "fill": "#222"}
    yield element("text", panel.title, x=0, y=-24, **title)
    for power in range(least, most + 1):
        y = down.at(10.0**power)
        number = f"{10.0**power:.{max(0, -power)}f}"
        yield element("line", x1=0, x2=PANEL, y1=y, y2=y, stroke="#e4e4e4")
        yield element("text", number, x=-8, y=y + 4, text_anchor="end", fill="#666")
    for tick in ticks(low, high):
        x = across.at(tick)
        below = {"y": HEIGHT + 17, "text_anchor": "middle", "fill": "#666"}
        yield element("line", x1=x, x2=x, y1=0, y2=HEIGHT, stroke="#f0f0f0")
        yield element("text", f"{tick:g}", x=x, **below)
    yield element("rect", width=PANEL, height=HEIGHT, fill="none", stroke="#bbb")
    beside = {"y": HEIGHT + 34, "text_anchor": "end", "fill": "#444"}
    yield element("text", panel.x_label, x=PANEL, **beside)
    yield element("text", panel.y_label, x=0, y=-7, fill="#444")
    for i, line in enumerate(panel.lines):
        drawn = points((across.at(x), down.at(y)) for x, y in zip(line.x, line.y, strict=True))
        style = {"stroke": line_color(i), "stroke_width": "1.8", "stroke_linejoin": "round"}
        yield element("polyline", points=drawn, fill="none", **style)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
