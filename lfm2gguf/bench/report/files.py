"""Where reports go: JSON, CSV, Markdown and HTML, of one report or of several compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lfm2gguf.bench.report import comparison
from lfm2gguf.bench.report.data import Report
from lfm2gguf.bench.report.page import page
from lfm2gguf.bench.report.tables import as_csv, markdown
from lfm2gguf.rendering import Targets, dumps, markdown_table, write_targets


def as_json(reports: Sequence[Report]) -> str:
    """Return one report's JSON, or that of the comparison of several."""
    if len(reports) == 1:
        return reports[0].dumps()
    return dumps(comparison.to_json(reports), indent=1)


def as_markdown(reports: Sequence[Report]) -> str:
    """Return the reports that were measured, and the comparison of all."""
    parts = [markdown(report) for report in reports if report.created or len(reports) == 1]
    if sum(len(report.subjects) for report in reports) > 1:
        lines = ["# Comparison", "", comparison.LEGEND]
        for table in comparison.comparison_tables(reports):
            lines += ["", f"## {table.title}", "", *markdown_table(table)]
        parts.insert(0, "\n".join(lines) + "\n")
    return "\n".join(parts)


WRITERS: dict[str, Callable[[Sequence[Report]], str]] = {
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
    "html": page,
}


def write(reports: Sequence[Report], targets: Targets) -> str:
    """Write each form that is asked for; return the text that belongs on standard output.

    Raises:
        OutputError: a file cannot be written, or the disk is full.

    """
    return write_targets(targets, lambda kind, _: WRITERS[kind](reports))
