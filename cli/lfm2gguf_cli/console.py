"""The console: the one file that knows where words go.

Results go to standard output, progress and notes to standard error. In a pipe there is no
colour, no bar and no box: plain lines.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lfm2gguf.storage import check_target, write_whole
from lfm2gguf_cli.layout import flow, layout

# A file's text is shown; it does not get to command the terminal.
CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))} | {10: "\\n"}


class Display:
    """Where a command's words go, given its options.

    Raises:
        OutputError: the file for JSON cannot be written.

    """

    def __init__(
        self, *, quiet: bool = False, json: bool = False, json_file: Path | None = None
    ) -> None:
        self.quiet, self.json, self.json_file = quiet, json, json_file
        if json_file is not None:
            check_target(json_file, overwrite=True)
        self.out = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(highlight=False, emoji=False, stderr=True)
        if quiet or not self.err.is_terminal:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def note(self, text: str) -> None:
        """Say something beside the result, on standard error."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """Say on standard error what has to be said even if the command is quiet."""
        self.err.print(text, markup=False, soft_wrap=True)

    def next(self, *words: object) -> None:
        """Say which command comes next, to a person: not where JSON is asked for."""
        self.hint(f"next: {shlex.join(map(str, words))}")

    def hint(self, text: str) -> None:
        """Say what to do next, to a person."""
        if not self.json:
            self.note(text.translate(CONTROL))

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line of the result as it is, never wrapped; nothing if it is to be quiet."""
        if not self.quiet:
            self.out.print(text, style=style, markup=False, soft_wrap=True)

    def gives(self, result: Callable[[], Any]) -> bool:
        """Give the result as JSON, to a file or printed; tell whether it was printed."""
        if self.json or self.json_file:
            from lfm2gguf.rendering import dumps  # not needed where nobody asks for JSON

            text = dumps(result(), indent=2)
            if self.json_file:
                write_whole(self.json_file, text, overwrite=True)
            if self.json:
                print(text, end="")  # noqa: T201
        return self.json

    def lines(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns as wide as their cells, without heads or a box."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            width = self.out.width if self.out.is_terminal else sys.maxsize
            for line in flow(cells, width):
                self.line(line)

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, plain_heads: bool = False
    ) -> None:
        """Print a table; in a pipe plain columns, under their heads with ``plain_heads``."""
        rows = [[cell.translate(CONTROL) for cell in row] for row in rows]
        if not self.out.is_terminal:
            self.lines([heads, *rows] if plain_heads else rows)
            return
        for block in layout(heads, rows, self.out.width):
            self.line("")
            for line in block:
                self.line(line)
        self.line("")
