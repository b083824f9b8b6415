"""A verification as Markdown, for the summary of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lfm2gguf.rendering import Table, escaped, markdown_table
from lfm2gguf.verification.measure.engine import SHIPPED
from lfm2gguf.verification.report.words import (
    conditions,
    details,
    explanation,
    gate_cells,
    headings,
    summary_cells,
)
from lfm2gguf.verification.verdict.result import Verification


def markdown(results: Sequence[Verification]) -> str:
    """Return a ladder of all files, then the gates and figures of each."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Sequence[Verification]) -> Iterator[str]:
    failed = sum(not result.passed for result in results)
    verdict = f"❌ {failed} of {len(results)} failed" if failed else "✅ passed"
    yield f"## lfm2gguf verify: {verdict}"
    yield ""
    yield conditions(results[0]) + "."
    yield ""
    yield from _table(headings(results[0]), [_marked(result) for result in results])
    for result in results:
        yield ""
        if not result.passed:
            yield f"**{escaped(result.candidate)} failed.** {escaped(explanation(result))}."
            yield ""
        yield f"<details{' open' if not result.passed else ''}>"
        yield f"<summary>Gates and figures of {escaped(result.candidate)}</summary>"
        yield ""
        gates = [(gate.title, *gate_cells(gate), gate.detail) for gate in result.gates]
        yield from _table(("gate", "value", "limit", "margin", "", "detail"), gates)
        yield ""
        yield from _table(("figure", *result.stages), list(details(result)))
        yield ""
        yield "</details>"


def _marked(result: Verification) -> tuple[str, ...]:
    cells = list(summary_cells(result))
    cells[1] = f"{'✅' if result.passed else '❌'} {cells[1]}"
    return tuple(cells)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    names = ["as shipped" if head == SHIPPED else head for head in heads]
    return markdown_table(Table("", names, rows, texts=len(names)))
