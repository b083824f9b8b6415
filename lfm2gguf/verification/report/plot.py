"""A picture of a verification: KL divergence over the chunk, and how probabilities moved.

SVG is written here, without any library; PNG is drawn by matplotlib (the extra ``plot``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from lfm2gguf.errors import MissingDependencyError, OptionError
from lfm2gguf.verification.measure.scores import Doubles, Scores
from lfm2gguf.verification.verdict.result import Verification

COLORS = ("#3b6fb6", "#d1622b", "#3a8f5c", "#8a5fb0", "#b8912a", "#c2506f", "#3f9aa8", "#6b6b6b",
          "#8c4f3a", "#5d7f2f")  # fmt: skip
BINS = 32
LEFT = "Mean KL divergence over the position in the chunk"
RIGHT = "Positions whose token's p moved this far, or farther"

TEXTS = "Texts whose vectors are this far away, or farther"
QUERIES = "Queries whose ranking is this far away, or farther"


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    label: str
    x: Doubles
    y: Doubles


def draw(results: Sequence[Verification], suffix: str) -> bytes:
    """Draw the picture in the format of a file's suffix.

    Raises OptionError for another than .svg and .png, MissingDependencyError for PNG
    without matplotlib.
    """
    if suffix == ".svg":
        return "\n".join(_svg(results)).encode("utf-8")
    if suffix == ".png":
        return _png(results)
    raise OptionError(f"a plot can be .svg or .png, not {suffix or 'a file without suffix'}")


def check_suffix(path: Path) -> None:
    """Raise as :func:`draw` would, before anything is computed."""
    if path.suffix not in (".svg", ".png"):
        raise OptionError(f"{path}: a plot can be .svg or .png")
    if path.suffix == ".png":
        _matplotlib()


def kld_curve(result: Verification) -> Curve:
    """Mean KL divergence in up to 32 bins of positions."""
    scores = _scores(result)
    positions, kld = result.positions[scores.finite], scores.kld[scores.finite]
    edges = np.linspace(result.positions.min(), result.positions.max() + 1, BINS + 1)
    which = np.digitize(positions, edges) - 1
    counts = np.bincount(which, minlength=BINS)
    sums = np.bincount(which, weights=kld, minlength=BINS)
    filled = counts > 0
    centres = (edges[:-1] + edges[1:]) / 2
    return Curve(result.candidate, centres[filled], sums[filled] / counts[filled])


def delta_curve(result: Verification) -> Curve:
    """Share of positions whose Δp is at least x away from 0, on the side of x; in per cent."""
    scores = _scores(result)
    change = np.sort(scores.delta_p[scores.finite]) * 100
    reach = max(0.1, float(np.abs(change).max())) if len(change) else 1.0
    x = np.linspace(-reach, reach, 201)
    below = np.searchsorted(change, x, side="right")
    above = len(change) - np.searchsorted(change, x, side="left")
    share = np.where(x < 0, below, above) / max(1, len(change))
    return Curve(result.candidate, x[share > 0], share[share > 0] * 100)


def _scores(result: Verification) -> Scores:
    assert result.scores is not None
    return result.scores


def sorted_curve(label: str, values: Sequence[float]) -> Curve:
    """Distances from 1, the largest first, over the share of values; in per cent."""
    distances = np.sort(1 - np.array(values))[::-1]
    distances = distances[np.isfinite(distances) & (distances > 0)]
    return Curve(label, np.arange(1, len(distances) + 1) / max(1, len(values)) * 100, distances)


def _panels(results: Sequence[Verification]) -> list[tuple[str, str, str, list[Curve]]]:
    """Title, axes and curves; both have a logarithmic vertical axis."""
    if results[0].scores is None:
        found = [(result.candidate, result.similarity) for result in results]
        texts = [sorted_curve(name, figures.cosines) for name, figures in found]
        queries = [sorted_curve(name, figures.rank_correlations) for name, figures in found]
        return [
            (TEXTS, "% of texts", "1 - cosine", texts),
            (QUERIES, "% of queries", "1 - rank correlation", queries),
        ]
    return [
        (LEFT, "position (tokens)", "nats", [kld_curve(result) for result in results]),
        (RIGHT, "Δp (percentage points)", "% of positions", [delta_curve(r) for r in results]),
    ]


WIDTH, HEIGHT, TOP, BOTTOM = 520, 330, 56, 46
PANEL, MARGIN = 400, 78


def _svg(results: Sequence[Verification]) -> Iterator[str]:
    legend = TOP + HEIGHT + BOTTOM + 12
    height = legend + 20 * math.ceil(len(results) / 2) + 14
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    yield f'<rect width="{2 * WIDTH}" height="{height}" fill="#ffffff"/>'
    for i, (title, x_label, y_label, curves) in enumerate(_panels(results)):
        yield f'<g transform="translate({i * WIDTH + MARGIN},{TOP})">'
        yield from _svg_panel(title, x_label, y_label, curves)
        yield "</g>"
    for i, result in enumerate(results):
        x, y = MARGIN + (i % 2) * WIDTH, legend + 20 * (i // 2)
        label = f"{result.candidate} - {'passed' if result.passed else 'FAILED'}"
        yield f'<rect x="{x}" y="{y - 5}" width="18" height="4" fill="{_color(i)}"/>'
        yield f'<text x="{x + 26}" y="{y + 1}" fill="#333">{escape(label)}</text>'
    yield "</svg>"


def _svg_panel(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> Iterator[str]:
    x_low, x_high = _range(np.concatenate([curve.x for curve in curves]))
    y_low, y_high = _decades(np.concatenate([curve.y for curve in curves]))

    def across(x: float) -> float:
        return (x - x_low) / (x_high - x_low) * PANEL

    def down(y: float) -> float:
        return (y_high - math.log10(max(y, 10.0**y_low))) / (y_high - y_low) * HEIGHT

    yield f'<text x="0" y="-24" font-size="15" font-weight="600" fill="#222">{title}</text>'
    for power in range(y_low, y_high + 1):
        y = down(10.0**power)
        yield f'<line x1="0" x2="{PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
        yield (
            f'<text x="-8" y="{y + 4:.1f}" text-anchor="end" fill="#666">'
            f"{10.0**power:.{max(0, -power)}f}</text>"
        )
    for tick in _ticks(x_low, x_high):
        x = across(tick)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="#f0f0f0"/>'
        yield (
            f'<text x="{x:.1f}" y="{HEIGHT + 17}" text-anchor="middle" fill="#666">{tick:g}</text>'
        )
    yield f'<rect width="{PANEL}" height="{HEIGHT}" fill="none" stroke="#bbb"/>'
    yield f'<text x="{PANEL}" y="{HEIGHT + 34}" text-anchor="end" fill="#444">{x_label}</text>'
    yield f'<text x="0" y="-7" fill="#444">{y_label}</text>'
    for i, curve in enumerate(curves):
        points = " ".join(
            f"{across(x):.1f},{down(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True)
        )
        yield (
            f'<polyline points="{points}" fill="none" stroke="{_color(i)}" stroke-width="1.8" '
            'stroke-linejoin="round"/>'
        )


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _range(x: Doubles) -> tuple[float, float]:
    low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _decades(y: Doubles) -> tuple[int, int]:
    """Powers of ten around the values, no more than eight decades."""
    y = y[y > 0]
    if not len(y):
        return -1, 0
    low, high = math.floor(math.log10(y.min())), math.ceil(math.log10(y.max()))
    return max(low, high - 8), max(high, low + 1)


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 8)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _matplotlib() -> type:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            'a PNG needs matplotlib: pip install "lfm2gguf[plot]", or ask for .svg'
        ) from error
    found: type = Figure
    return found


def _png(results: Sequence[Verification]) -> bytes:
    figure = _matplotlib()(figsize=(13, 5), layout="constrained")
    for axes, (title, x_label, y_label, curves) in zip(
        figure.subplots(1, 2), _panels(results), strict=True
    ):
        for i, curve in enumerate(curves):
            axes.plot(curve.x, curve.y, label=curve.label, color=_color(i))
        axes.set(title=title, xlabel=x_label, ylabel=y_label, yscale="log")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
