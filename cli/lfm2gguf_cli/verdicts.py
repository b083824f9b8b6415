"""What convert --verify and verify share: the table of verdicts, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from lfm2gguf.verification import Verification
from lfm2gguf.verification.report.data import to_json as report_json
from lfm2gguf.verification.report.words import (
    conditions,
    explanation,
    gate_cells,
    headings,
    summary_cells,
)
from lfm2gguf_cli.console import Display

__all__ = ["conclude", "report_json", "show_verdicts"]

CHECK_FAILED = 1


def show_verdicts(display: Display, results: Sequence[Verification]) -> None:
    """Show the ladder, the gates of a single file, and the failures; if quiet, those alone."""
    failures = [
        f"{result.candidate} FAILED: {explanation(result)}"
        for result in results
        if not result.passed
    ]
    if display.quiet or display.json:  # then standard output is silent, or holds JSON alone
        for failure in failures:
            display.complain(failure)
        return
    display.line(conditions(results[0]))
    if len(results) == 1:
        rows = [(gate.title, *gate_cells(gate)) for gate in results[0].gates]
        display.table(("gate", "value", "limit", "margin", "verdict"), rows)
    ladder = [summary_cells(result) for result in results]
    display.table(headings(results[0]), ladder, plain_heads=True)
    for failure in failures:
        display.line(failure)


def conclude(display: Display, results: Sequence[Verification], files: Sequence[Path]) -> None:
    """Say what comes next; end the command with exit code 1 unless every file passed."""
    for result, file in zip(results, files, strict=True):
        if not result.passed:
            display.next("lfm2gguf", "doctor", file)
            raise typer.Exit(CHECK_FAILED)
    display.next("lfm2gguf", "run", files[0])
