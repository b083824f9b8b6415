"""The progress of a command, on standard error: a bar on a terminal, else plain lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lfm2gguf.progress import ProgressCallback
from lfm2gguf.rendering import PlainLines, TerminalBar
from lfm2gguf_cli.console import Display


@contextlib.contextmanager
def progress_of(display: Display) -> Iterator[ProgressCallback | None]:
    """Give a callback that shows a command's progress; None where it is to be quiet."""
    if display.quiet:
        yield None
    elif not display.err.is_terminal:
        yield PlainLines()
    else:
        bar = TerminalBar(display.err)
        try:
            yield bar
        finally:
            bar.close()
