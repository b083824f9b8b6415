"""Where reports go: JSON, CSV, Markdown and HTML, of one report or of several compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lfm2gguf.bench.report import comparison
from lfm2gguf.bench.report.data import Report
from lfm2gguf.bench.report.page import page
from lfm2gguf.bench.report.tables import csv_text, markdown, markdown_table
from lfm2gguf.errors import OutputError
from lfm2gguf.verification.report.data import write_report

STANDARD_OUTPUT = Path("-")


def as_json(reports: Sequence[Report]) -> str:
    """Return one report's JSON, or that of the comparison of several."""
    if len(reports) == 1:
        return reports[0].dumps()
    return json.dumps(comparison.to_json(reports), indent=1, ensure_ascii=False) + "\n"


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
    "csv": csv_text,
    "markdown": as_markdown,
    "html": page,
}


def check_targets(targets: Mapping[str, Path | None]) -> None:
    """Refuse what could not be written, before anything is measured. Raises OutputError."""
    for name, path in targets.items():
        if path in (None, STANDARD_OUTPUT):
            continue
        assert path is not None
        if path.is_dir() or not path.parent.is_dir():
            raise OutputError(f"cannot write --{name} {path}: its folder must exist")


def write(reports: Sequence[Report], targets: Mapping[str, Path | None]) -> None:
    """Write each form that is asked for; ``-`` is standard output."""
    for name, path in targets.items():
        if path == STANDARD_OUTPUT:
            sys.stdout.write(WRITERS[name](reports))
        elif path is not None:
            write_report(path, WRITERS[name](reports))
