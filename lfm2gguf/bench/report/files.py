"""What reports become, one or several compared: plain data, CSV, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lfm2gguf.bench.report import comparison
from lfm2gguf.bench.report.data import Report
from lfm2gguf.bench.report.page import page
from lfm2gguf.bench.report.tables import as_csv, markdown
from lfm2gguf.rendering import Targets, markdown_table, plain, write_targets


def as_data(reports: Sequence[Report]) -> dict[str, Any]:
    """Return one report as plain data, or the comparison of several."""
    data = reports[0].to_json() if len(reports) == 1 else plain(comparison.to_json(reports))
    return dict(data)


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
