"""A verification as Markdown, for the summary of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lfm2gguf.verification.figures import Estimate
from lfm2gguf.verification.verdict import SHIPPED, Verification
from lfm2gguf.verification.words import HEADINGS, conditions, explanation, gate_cells, summary_cells


def markdown(results: Sequence[Verification]) -> str:
    """A ladder of all files, then the gates and figures of each."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Sequence[Verification]) -> Iterator[str]:
    failed = sum(not result.passed for result in results)
    verdict = f"❌ {failed} of {len(results)} failed" if failed else "✅ passed"
    yield f"## lfm2gguf verify: {verdict}"
    yield ""
    yield conditions(results[0]) + "."
    yield ""
    yield from _table(HEADINGS, [_marked(result) for result in results])
    for result in results:
        yield ""
        if not result.passed:
            yield f"**{_escape(result.candidate)} failed.** {_escape(explanation(result))}."
            yield ""
        yield f"<details{' open' if not result.passed else ''}>"
        yield f"<summary>Gates and figures of {_escape(result.candidate)}</summary>"
        yield ""
        gates = [(gate.name, *gate_cells(gate), gate.detail) for gate in result.gates]
        yield from _table(("gate", "value", "limit", "margin", "", "detail"), gates)
        yield ""
        yield from _table(("figure", *result.stages), list(_figures(result)))
        yield ""
        yield "</details>"


def _marked(result: Verification) -> tuple[str, ...]:
    cells = list(summary_cells(result))
    cells[1] = f"{'✅' if result.passed else '❌'} {cells[1]}"
    return tuple(cells)


def _figures(result: Verification) -> Iterator[tuple[str, ...]]:
    stages = list(result.stages.values())

    def row(name: str, attribute: str, scale: float = 1, unit: str = "") -> tuple[str, ...]:
        return (name, *(_estimate(getattr(s, attribute), scale, unit) for s in stages))

    yield row("PPL of the reference", "ppl_reference")
    yield row("PPL of the file", "ppl_candidate")
    yield row("PPL ratio", "ppl_ratio")
    yield row("ln PPL ratio", "log_ppl_ratio")
    yield ("correlation of ln PPL", *(f"{100 * s.correlation:.2f} %" for s in stages))
    yield row("mean KL divergence", "kld")
    for q in stages[0].kld_percentiles:
        yield (f"KL divergence, {q} %", *(f"{s.kld_percentiles[q]:.6f}" for s in stages))
    yield row("mean Δp", "delta_p", 100, " %")
    yield row("RMS Δp", "delta_p_rms", 100, " %")
    for q in stages[0].delta_p_percentiles:
        yield (f"Δp, {q} %", *(f"{100 * s.delta_p_percentiles[q]:.3f} %" for s in stages))
    yield row("same top token", "same_top", 100, " %")


def _estimate(estimate: Estimate, scale: float, unit: str) -> str:
    return f"{scale * estimate.value:.6f} ± {scale * estimate.uncertainty:.6f}{unit}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    names = ["as shipped" if head == SHIPPED else head for head in heads]
    yield "| " + " | ".join(names) + " |"
    yield "|" + " --- |" * len(names)
    for row in rows:
        yield "| " + " | ".join(_escape(cell) for cell in row) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
