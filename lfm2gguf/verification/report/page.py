"""A verification as one HTML page: the ladder as a picture, curves, gates and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from lfm2gguf.rendering import (
    Panel,
    Table,
    document,
    draw_panel,
    figures,
    html_figure,
    html_table,
    keys,
)
from lfm2gguf.verification.measure.engine import SHIPPED
from lfm2gguf.verification.report.ladder import MOST_BITS, ladder
from lfm2gguf.verification.report.plot import panels
from lfm2gguf.verification.report.words import (
    conditions,
    details,
    explanation,
    gate_cells,
    headings,
    summary_cells,
)
from lfm2gguf.verification.verdict.result import Verification

GATE_HEADS = ("gate", "value", "limit", "margin", "verdict", "detail")


def page(results: Sequence[Verification]) -> str:
    """Return the page of files that were judged against one reference."""
    title = results[0].candidate if len(results) == 1 else results[0].reference
    return "\n".join(document("lfm2gguf verify", title, _body(results))) + "\n"


def _body(results: Sequence[Verification]) -> Iterator[str]:
    failed = sum(not result.passed for result in results)
    yield (
        f'<p class="verdict bad">✗ {failed} of {len(results)} failed</p>' if failed
        else '<p class="verdict good">✓ passed</p>'
    )  # fmt: skip
    for result in results:
        if not result.passed:
            said = f"{result.candidate}: {explanation(result)}"
            yield f'<p class="cut">{escape(said)}.</p>'
    yield f'<p class="legend">{escape(conditions(results[0]))}.</p>'
    drawn = ladder(results)
    yield from figures([_figure(drawn) if drawn else ""])
    yield from figures([_figure(panel) for panel in panels(results)])
    if len(results) > 1:
        yield keys([result.candidate for result in results])
    yield "<section><h2>Files</h2>"
    rows = [_marked(result) for result in results]
    yield from html_table(Table("", headings(results[0]), rows, texts=2))
    yield "</section><section><h2>Gates and figures</h2>"
    for result in results:
        yield from _file(result)
    yield "</section>"


def _figure(panel: Panel) -> str:
    svg = draw_panel(panel)
    if not any(line.names for line in panel.lines):
        return html_figure(panel.title, svg)  # its lines are the files
    title = f"{panel.title}, of files below {MOST_BITS:g} bits per weight"
    return html_figure(title, svg + keys([line.label for line in panel.lines]))


def _marked(result: Verification) -> tuple[str, ...]:
    cells = list(summary_cells(result))
    cells[1] = f"{'✓' if result.passed else '✗'} {cells[1]}"
    return tuple(cells)


def _file(result: Verification) -> Iterator[str]:
    cells = _marked(result)
    color = "good" if result.passed else "bad"
    yield f"<details{'' if result.passed else ' open'}><summary>{escape(result.candidate)} "
    yield f'<span class="{color}">{cells[1]}</span></summary>'
    gates = [(gate.title, *gate_cells(gate), gate.detail) for gate in result.gates]
    yield from html_table(Table("Gates", GATE_HEADS, gates))
    stages = ["as shipped" if name == SHIPPED else name for name in result.stages]
    yield from html_table(Table("Figures", ("figure", *stages), list(details(result))))
    yield "</details>"
