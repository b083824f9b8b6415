"""How a report writes its numbers: shared by the table, Markdown and JUnit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from lfm2gguf.verification.measure.engine import SHIPPED
from lfm2gguf.verification.measure.figures import Estimate, Figures
from lfm2gguf.verification.measure.similarity import BEST, Similarity
from lfm2gguf.verification.verdict.gates import WEIGHTS, Gate
from lfm2gguf.verification.verdict.result import Verification


def number(value: float, percent: bool = False, signed: bool = False) -> str:
    """Return a number as a person reads it: per cent, a count, or six significant decimals."""
    if not math.isfinite(value):
        return str(value)
    if percent:
        return f"{100 * value:{'+' if signed else ''}.2f} %"
    if isinstance(value, int):
        return str(value)
    return f"{value:{'+' if signed else ''}.{6 if abs(value) >= 1e-4 else 8}f}"


def gate_cells(gate: Gate) -> tuple[str, str, str, str]:
    """Return value, limit with its tolerance, margin, and verdict of a gate."""
    sign = "≤" if gate.relation == "<=" else "≥"
    limit = f"{sign} {number(gate.limit, gate.percent)}"
    if gate.tolerance:
        limit += f" + {number(gate.tolerance, gate.percent)}"
    margin = number(gate.margin, gate.percent, signed=True) if gate.limit else ""
    return number(gate.value, gate.percent), limit, margin, "passed" if gate.passed else "FAILED"


def headings(result: Verification) -> tuple[str, ...]:
    """Return the columns of the quantization ladder."""
    return ("file", "verdict", "size", *_summary(result.stages[SHIPPED]), "weights")


def summary_cells(result: Verification) -> tuple[str, ...]:
    """Return one row of the ladder, under :func:`headings`."""
    weights = next((gate.value for gate in result.gates if gate.name == WEIGHTS), math.nan)
    return (
        result.candidate,
        "passed" if result.passed else "FAILED",
        f"{result.size / 1e6:.1f} MB",
        *_summary(result.stages[SHIPPED]).values(),
        number(weights, percent=True),
    )


@singledispatch
def _summary(figures: Any) -> dict[str, str]:
    """Return a comparison in a few figures."""
    raise TypeError(figures)


@_summary.register
def _(figures: Figures) -> dict[str, str]:
    return {
        "PPL": f"{figures.ppl_candidate.value:.4f}",
        "PPL ratio": f"{figures.ppl_ratio.value:.5f} ± {figures.ppl_ratio.uncertainty:.5f}",
        "mean KLD": f"{figures.kld.value:.6f} ± {figures.kld.uncertainty:.6f}",
        "99% KLD": f"{figures.kld_percentiles['99']:.5f}",
        "same top": f"{100 * figures.same_top.value:.2f} %",
        "RMS Δp": f"{100 * figures.delta_p_rms.value:.3f} %",
    }


@_summary.register
def _(figures: Similarity) -> dict[str, str]:
    rank = figures.rank_correlation
    return {
        "mean cosine": f"{figures.cosine.value:.6f} ± {figures.cosine.uncertainty:.6f}",
        "least cosine": f"{figures.cosine_percentiles['0']:.5f}",
        "rank correlation": f"{rank.value:.5f} ± {rank.uncertainty:.5f}",
        "same best": f"{100 * figures.same_best.value:.2f} %",
        f"same of {BEST} best": f"{100 * figures.best_overlap.value:.2f} %",
    }


def details(result: Verification) -> Iterator[tuple[str, ...]]:
    """Yield every figure with its value in each stage."""
    stages = [_details(figures) for figures in result.stages.values()]
    return ((name, *(stage[name] for stage in stages)) for name in stages[0])


@singledispatch
def _details(figures: Any) -> dict[str, str]:
    """Return a comparison in all its figures."""
    raise TypeError(figures)


@_details.register
def _(figures: Figures) -> dict[str, str]:
    klds, deltas = figures.kld_percentiles, figures.delta_p_percentiles
    return {
        "PPL of the reference": _estimate(figures.ppl_reference),
        "PPL of the file": _estimate(figures.ppl_candidate),
        "PPL ratio": _estimate(figures.ppl_ratio),
        "ln PPL ratio": _estimate(figures.log_ppl_ratio),
        "correlation of ln PPL": f"{100 * figures.correlation:.2f} %",
        "mean KL divergence": _estimate(figures.kld),
        **{f"KL divergence, {q} %": f"{kld:.6f}" for q, kld in klds.items()},
        "mean Δp": _estimate(figures.delta_p, 100, " %"),
        "RMS Δp": _estimate(figures.delta_p_rms, 100, " %"),
        **{f"Δp, {q} %": f"{100 * delta:.3f} %" for q, delta in deltas.items()},
        "same top token": _estimate(figures.same_top, 100, " %"),
    }


@_details.register
def _(figures: Similarity) -> dict[str, str]:
    return {
        "mean cosine of a text": _estimate(figures.cosine),
        "worst text": f"{min(figures.cosines):.6f}",
        **{f"cosine, {q} %": f"{cosine:.6f}" for q, cosine in figures.cosine_percentiles.items()},
        "rank correlation": _estimate(figures.rank_correlation),
        "worst query": f"{min(figures.rank_correlations):.6f}",
        "same best document": _estimate(figures.same_best, 100, " %"),
        f"same among the best {BEST}": _estimate(figures.best_overlap, 100, " %"),
    }


def _estimate(estimate: Estimate, scale: float = 1, unit: str = "") -> str:
    return f"{scale * estimate.value:.6f} ± {scale * estimate.uncertainty:.6f}{unit}"


def conditions(result: Verification) -> str:
    """Return what was measured on what, in one sentence."""
    texts = ", ".join(f"{text['name']} ({text['chunks']} sequences)" for text in result.texts)
    notes = "".join(f". Note: {text['note']}" for text in result.texts if "note" in text)
    where = f" on {result.device}" if result.engine == "llama.cpp" else ""
    measured, of = _measured(result.stages[SHIPPED])
    ctx = f", ctx {result.ctx}" if result.scores is not None else ""
    return (
        f"{measured} of {texts}{ctx}; "
        f"{result.engine}{where} against {result.reference}{of} in float32{notes}"
    )


@singledispatch
def _measured(figures: Any) -> tuple[str, str]:
    """Return what was counted, and what to add about the reference."""
    raise TypeError(figures)


@_measured.register
def _(figures: Figures) -> tuple[str, str]:
    return f"{figures.tokens} positions", f" (PPL {figures.ppl_reference.value:.4f})"


@_measured.register
def _(figures: Similarity) -> tuple[str, str]:
    return f"{figures.queries} queries and {figures.documents} documents", ""


def explanation(result: Verification) -> str:
    """Return why a file failed, in a sentence or two; empty if it passed."""
    if result.passed:
        return ""
    parts = [
        f"{gate.title}: {gate_cells(gate)[0]}, allowed {gate_cells(gate)[1]}"
        + (f" ({gate.detail})" if gate.detail else "")
        for gate in result.failures
    ]
    if result.culprit:
        parts.append(f"what failed: {result.culprit}")
    return "; ".join(parts)
