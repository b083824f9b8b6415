"""How a report says its numbers: shared by the table, Markdown and JUnit."""

from __future__ import annotations

import math

from lfm2gguf.verification.gates import TENSORS, Gate
from lfm2gguf.verification.verdict import Verification

HEADINGS = ("file", "verdict", "size", "PPL", "PPL ratio", "mean KLD", "99% KLD", "same top",
            "RMS Δp", "weights")  # fmt: skip


def number(value: float, percent: bool = False, signed: bool = False) -> str:
    """A number as a person reads it: per cent, a count, or six significant decimals."""
    if not math.isfinite(value):
        return str(value)
    if percent:
        return f"{100 * value:{'+' if signed else ''}.2f} %"
    if isinstance(value, int):
        return str(value)
    return f"{value:{'+' if signed else ''}.{6 if abs(value) >= 1e-4 else 8}f}"


def gate_cells(gate: Gate) -> tuple[str, str, str, str]:
    """Value, limit with its tolerance, margin, and verdict of a gate."""
    sign = "≤" if gate.relation == "<=" else "≥"
    limit = f"{sign} {number(gate.limit, gate.percent)}"
    if gate.tolerance:
        limit += f" + {number(gate.tolerance, gate.percent)}"
    margin = number(gate.margin, gate.percent, signed=True) if gate.limit else ""
    return number(gate.value, gate.percent), limit, margin, "passed" if gate.passed else "FAILED"


def summary_cells(result: Verification) -> tuple[str, ...]:
    """One row of the quantization ladder, under :data:`HEADINGS`."""
    figures = result.figures
    weights = next((gate.value for gate in result.gates if gate.name == TENSORS), math.nan)
    return (
        result.candidate,
        "passed" if result.passed else "FAILED",
        f"{result.size / 1e6:.1f} MB",
        f"{figures.ppl_candidate.value:.4f}",
        f"{figures.ppl_ratio.value:.5f} ± {figures.ppl_ratio.uncertainty:.5f}",
        f"{figures.kld.value:.6f} ± {figures.kld.uncertainty:.6f}",
        f"{figures.kld_percentiles['99']:.5f}",
        f"{100 * figures.same_top.value:.2f} %",
        f"{100 * figures.delta_p_rms.value:.3f} %",
        number(weights, percent=True),
    )


def conditions(result: Verification) -> str:
    """What was measured on what, in one sentence."""
    texts = ", ".join(f"{text['name']} ({text['chunks']} sequences)" for text in result.texts)
    where = f" on {result.device}" if result.engine == "llama.cpp" else ""
    return (
        f"{result.figures.tokens} positions of {texts}, ctx {result.ctx}; "
        f"{result.engine}{where} against {result.reference} "
        f"(PPL {result.figures.ppl_reference.value:.4f}) in float32"
    )


def explanation(result: Verification) -> str:
    """Why a file failed, in a sentence or two; empty if it passed."""
    if result.passed:
        return ""
    parts = [
        f"{gate.name}: {gate_cells(gate)[0]}, allowed {gate_cells(gate)[1]}"
        + (f" ({gate.detail})" if gate.detail else "")
        for gate in result.failures
    ]
    if result.culprit:
        parts.append(f"what failed: {result.culprit}")
    return "; ".join(parts)
