"""SVG without a library: elements, and the scales that both kinds of plots draw along."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape


def element(tag: str, content: str | None = None, /, **attributes: object) -> str:
    """Write an element around a text, which is escaped, or an empty one without ``content``.

    Attributes come in the order given; ``class_`` and ``text_anchor`` stand for ``class`` and
    ``text-anchor``, and floats have one decimal.
    """
    opened = f"<{tag}{_attributes(attributes)}"
    return f"{opened}/>" if content is None else f"{opened}>{escape(content, quote=False)}</{tag}>"


def opened(tag: str, **attributes: object) -> str:
    """Write the start of an element that holds others."""
    return f"<{tag}{_attributes(attributes)}>"


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Write the points of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _attributes(attributes: dict[str, object]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
    )


def _value(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


@dataclass(frozen=True)
class Scale:
    """Positions in a drawing: values from ``low`` to ``high`` lie between ``start`` and ``end``.

    A logarithmic scale takes positive values; those below ``low`` are drawn at it.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies; in the middle where the scale has a single value."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log2(low), math.log2(high), math.log2(max(value, low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * share


def decades(values: Iterable[float]) -> tuple[int, int]:
    """Return the powers of ten around positive values, no more than eight decades of them."""
    positive = [value for value in values if value > 0]
    if not positive:
        return -1, 0
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return max(low, high - 8), max(high, low + 1)


def ticks(low: float, high: float) -> list[float]:
    """Return four to eight round numbers between two others."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 8)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def round_up(value: float) -> float:
    """Return the next of 1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8 times a power of ten.

    Their quarters are short numbers.
    """
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    steps = (1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8, 10)
    return float(next(step * power for step in steps if value <= step * power * (1 + 1e-9)))
