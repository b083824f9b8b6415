"""Running the command line: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from lfm2gguf_cli.main import main

COMMAND = [sys.executable, "-m", "lfm2gguf_cli.main"]


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Result:
    """Call the entry point itself, error boundary and all."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    code: object = 0
    with (
        patch.object(sys, "argv", ["lfm2gguf", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit:
            code = exit.code
        finally:
            signal.signal(signal.SIGTERM, before)
    assert code is None or isinstance(code, int)
    return Result(code or 0, out.getvalue(), err.getvalue())


def refusal(*arguments: object, within: Path) -> str:
    """Run a command that must be refused: one line, exit code 2, and nothing written."""
    before = listing(within)
    result = run(*arguments)
    assert result.code == 2, result
    assert result.out == ""
    assert listing(within) == before
    assert result.err.startswith("lfm2gguf: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1, result.err
    return result.err


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder, with its size and time."""
    stats = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats}
