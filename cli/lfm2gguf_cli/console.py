"""The console: the one file that knows how Rich prints.

Results go to standard output, progress and notes to standard error. In a pipe there is no
colour, no bar and no box: plain lines.
"""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A file's text is shown; it does not get to command the terminal.
CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))} | {10: "\\n"}


class Display:
    """Where a command's words go, given its options."""

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self.quiet, self.json = quiet, json
        self.out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(highlight=False, stderr=True)
        if quiet or not self.err.is_terminal:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def note(self, text: str) -> None:
        """Say something beside the result, on standard error."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Say on standard error what has to be said even if the command is quiet."""
        self.err.print(text, markup=False, soft_wrap=True)

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line of the result as it is, never wrapped."""
        self.out.print(text, style=style, markup=False, soft_wrap=True)

    def as_json(self, value: Any) -> None:
        """Print the result as JSON."""
        print(json_module.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201

    def lines(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns as wide as their cells, without heads or a box."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.line("  ".join(cells).rstrip())

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, plain_heads: bool = False
    ) -> None:
        """Print a table; in a pipe plain columns, under their heads with ``plain_heads``."""
        rows = [[cell.translate(CONTROL) for cell in row] for row in rows]
        if not self.out.is_terminal:
            self.lines([heads, *rows] if plain_heads else rows)
            return
        table = Table(*heads, box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*map(Text, row))  # Text: what looks like markup is none
        self.out.print(table)
