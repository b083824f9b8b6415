"""Panels of curves with a linear axis across and a logarithmic one upwards.

Side by side they are a picture of its own, in colours that every viewer of SVG knows; one by one
they are figures of a page, in the page's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from lfm2gguf.rendering.labels import Box, place
from lfm2gguf.rendering.palette import CURVES, LIGHT, curve_class, curve_color
from lfm2gguf.rendering.svg import Scale, decades, element, opened, points, ticks

WIDTH, HEIGHT, TOP, BOTTOM = 520, 330, 56, 46
PANEL, MARGIN = 400, 78
ALONE = (WIDTH, HEIGHT + 84, 68, 30)  # of a page's figure: width, height, left, top
Ink = Callable[[str], dict[str, object]]  # how a part is drawn: attributes, or the page's classes
_PRINTED: dict[str, dict[str, object]] = {
    "grid": {"stroke": LIGHT["edge"]},
    "frame": {"fill": "none", "stroke": LIGHT["edge"]},
    "tick": {"fill": LIGHT["soft"]},
    "unit": {"fill": LIGHT["soft"]},
}


@dataclass(frozen=True)
class Line:
    """One line of a panel: as many ``x`` as ``y``; with ``names`` each point is a named dot."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Panel:
    """Lines, and what their axes show; colours go by the order of the lines."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def draw_panels(panels: Sequence[Panel], legend: Sequence[str]) -> str:
    """Draw panels side by side, with a word for each line, as a picture of its own."""
    return "\n".join(_picture(panels, legend))


def draw_panel(panel: Panel) -> str:
    """Draw one panel for a page, which has its title and colours."""
    return "".join(_figure(panel))


def _figure(panel: Panel) -> Iterator[str]:
    width, height, left, top = ALONE
    yield (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(panel.title)}">'
        f'<g transform="translate({left},{top})">'
    )
    yield from _panel(panel, lambda part: {"class_": part}, lambda i: {"class_": curve_class(i)})
    yield "</g></svg>"


def _picture(panels: Sequence[Panel], legend: Sequence[str]) -> Iterator[str]:
    below = TOP + HEIGHT + BOTTOM + 12
    width, height = len(panels) * WIDTH, below + 20 * math.ceil(len(legend) / 2) + 14
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    yield element("rect", width=width, height=height, fill=LIGHT["back"])
    for i, panel in enumerate(panels):
        yield opened("g", transform=f"translate({i * WIDTH + MARGIN},{TOP})")
        title = {"font_size": 15, "font_weight": 600, "fill": LIGHT["text"]}
        yield element("text", panel.title, x=0, y=-24, **title)
        yield from _panel(panel, _PRINTED.__getitem__, _printed_curve)
        yield "</g>"
    for i, label in enumerate(legend):
        x, y = MARGIN + (i % 2) * WIDTH, below + 20 * (i // 2)
        yield element("line", x1=x, x2=x + 18, y1=y - 3, y2=y - 3, stroke_width=4,
                      **_printed_curve(i))  # fmt: skip
        yield element("text", label, x=x + 26, y=y + 1, fill=LIGHT["text"])
    yield "</svg>"


def _printed_curve(i: int) -> dict[str, object]:
    dash = {"stroke_dasharray": "5 4"} if i >= CURVES else {}
    return {"stroke": curve_color(i), "color": curve_color(i), **dash}


def _panel(panel: Panel, ink: Ink, curve: Callable[[int], dict[str, object]]) -> Iterator[str]:
    low, high = _range([x for line in panel.lines for x in line.x])
    across = Scale(low, high, 0, PANEL)
    least, most = decades(y for line in panel.lines for y in line.y)
    down = Scale(10.0**least, 10.0**most, HEIGHT, 0, logarithmic=True)
    for power in range(least, most + 1):
        y = down.at(10.0**power)
        number = f"1e{power}" if power < -5 else f"{10.0**power:.{max(0, -power)}f}"
        yield element("line", x1=0, x2=PANEL, y1=y, y2=y, **ink("grid"))
        yield element("text", number, x=-8, y=y + 4, text_anchor="end", **ink("tick"))
    for tick in ticks(low, high):
        x = across.at(tick)
        yield element("line", x1=x, x2=x, y1=0, y2=HEIGHT, stroke_opacity=".6", **ink("grid"))
        yield element("text", f"{tick:g}", x=x, y=HEIGHT + 17, text_anchor="middle", **ink("tick"))
    yield element("rect", width=PANEL, height=HEIGHT, **ink("frame"))
    beside = {"y": HEIGHT + 36, "text_anchor": "end"}
    yield element("text", panel.x_label, x=PANEL, **beside, **ink("unit"))
    yield element("text", panel.y_label, x=0, y=-8, **ink("unit"))
    taken: list[Box] = []
    for i, line in enumerate(panel.lines):
        at = [(across.at(x), down.at(y)) for x, y in zip(line.x, line.y, strict=True)]
        yield opened("g", **curve(i))
        style = {"stroke": "currentColor", "stroke_width": "1.8", "stroke_linejoin": "round"}
        yield element("polyline", points=points(at), fill="none", **style)
        yield from _dots(line, at)
        yield "</g>"
        taken += [Box(x - 4, y - 4, x + 4, y + 4) for x, y in at if line.names]
    for i, line in enumerate(panel.lines):
        at = [(across.at(x), down.at(y)) for x, y in zip(line.x, line.y, strict=True)]
        for name, x, y in place(line.names, at, taken, Box(0, 0, PANEL, HEIGHT)):
            yield opened("g", **curve(i))
            style = {"class_": "name", "fill": "currentColor", "stroke": "none"}
            yield element("text", name, x=x, y=y, **style)
            yield "</g>"


def _dots(line: Line, at: Sequence[tuple[float, float]]) -> Iterator[str]:
    for name, (x, y), value, across in zip(line.names, at, line.y, line.x, strict=False):
        yield opened("circle", cx=x, cy=y, r=3.4, fill="currentColor", stroke="none")
        yield element("title", f"{line.label}, {name}: {value:.4g} at {across:.3g}") + "</circle>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
