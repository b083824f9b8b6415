"""A picture of a verification: KL divergence over the chunk, and how probabilities moved.

SVG needs no library; PNG is drawn by matplotlib (the extra ``plot``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfm2gguf.errors import MissingDependencyError, OptionError
from lfm2gguf.install import install_command
from lfm2gguf.rendering import Line, Panel, curve_color, draw_panels
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.verdict.result import Verification

BINS = 32
LEFT = "Mean KL divergence over the position in the chunk"
RIGHT = "Positions whose token's p moved this far, or farther"

TEXTS = "Texts whose vectors are this far away, or farther"
QUERIES = "Queries whose ranking is this far away, or farther"


def draw(results: Sequence[Verification], suffix: str) -> bytes:
    """Draw the picture in the format of a file's suffix.

    Raises:
        OptionError: the suffix is neither .svg nor .png.
        MissingDependencyError: PNG, and matplotlib is not installed.

    """
    if suffix == ".svg":
        legend = [f"{r.candidate} - {'passed' if r.passed else 'FAILED'}" for r in results]
        return draw_panels(panels(results), legend).encode("utf-8")
    if suffix == ".png":
        return _png(results)
    raise OptionError(f"a plot can be .svg or .png, not {suffix or 'a file without suffix'}")


def check_suffix(path: Path) -> None:
    """Refuse a path as :func:`draw` would, before anything is computed.

    Raises:
        OptionError: the suffix is neither .svg nor .png.
        MissingDependencyError: PNG, and matplotlib is not installed.

    """
    if path.suffix not in (".svg", ".png"):
        raise OptionError(f"{path}: a plot can be .svg or .png")
    if path.suffix == ".png":
        _matplotlib()


def kld_curve(result: Verification) -> Line:
    """Return the mean KL divergence in up to 32 bins of positions."""
    scores = _scores(result)
    positions, kld = result.positions[scores.finite], scores.kld[scores.finite]
    edges = np.linspace(result.positions.min(), result.positions.max() + 1, BINS + 1)
    which = np.digitize(positions, edges) - 1
    counts = np.bincount(which, minlength=BINS)
    sums = np.bincount(which, weights=kld, minlength=BINS)
    filled = counts > 0
    centres = (edges[:-1] + edges[1:]) / 2
    means = sums[filled] / counts[filled]
    return Line(result.candidate, centres[filled].tolist(), means.tolist())


def delta_curve(result: Verification) -> Line:
    """Return the per cent of positions whose Δp is at least x away from 0, on the side of x."""
    scores = _scores(result)
    change = np.sort(scores.delta_p[scores.finite]) * 100
    reach = max(0.1, float(np.abs(change).max())) if len(change) else 1.0
    x = np.linspace(-reach, reach, 201)
    below = np.searchsorted(change, x, side="right")
    above = len(change) - np.searchsorted(change, x, side="left")
    share = np.where(x < 0, below, above) / max(1, len(change))
    return Line(result.candidate, x[share > 0].tolist(), (share[share > 0] * 100).tolist())


def _scores(result: Verification) -> Scores:
    assert result.scores is not None
    return result.scores


def sorted_curve(label: str, values: Sequence[float]) -> Line:
    """Return the distances from 1, the largest first, over the share of values; in per cent."""
    distances = np.sort(1 - np.array(values))[::-1]
    distances = distances[np.isfinite(distances) & (distances > 0)]
    share = np.arange(1, len(distances) + 1) / max(1, len(values)) * 100
    return Line(label, share.tolist(), distances.tolist())


def panels(results: Sequence[Verification]) -> list[Panel]:
    """Return the curves of all files: what is lost where, and how often."""
    if results[0].scores is None:
        found = [(result.candidate, result.similarity) for result in results]
        texts = [sorted_curve(name, figures.cosines) for name, figures in found]
        queries = [sorted_curve(name, figures.rank_correlations) for name, figures in found]
        return [
            Panel(TEXTS, "% of texts", "1 - cosine", texts),
            Panel(QUERIES, "% of queries", "1 - rank correlation", queries),
        ]
    return [
        Panel(LEFT, "position (tokens)", "nats", [kld_curve(r) for r in results]),
        Panel(RIGHT, "Δp (percentage points)", "% of positions", [delta_curve(r) for r in results]),
    ]


def _matplotlib() -> type:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"a PNG needs matplotlib: {install_command('plot')}, or ask for .svg"
        ) from error
    found: type = Figure
    return found


def _png(results: Sequence[Verification]) -> bytes:
    figure = _matplotlib()(figsize=(13, 5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, 2), panels(results), strict=True):
        for i, line in enumerate(panel.lines):
            axes.plot(line.x, line.y, label=line.label, color=curve_color(i))
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label, yscale="log")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
