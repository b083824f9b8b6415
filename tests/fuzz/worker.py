"""The process in which inputs are made and judged, and what counts as a fault.

Not a fault: an :class:`~lfm2gguf.errors.Lfm2ggufError`, and an OSError (the command line turns
both into exit code 2). Faults: any other exception, memory beyond a bound, and what an area says.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEMORY = 400 << 20  # bytes that one small input may add
ADDRESS_SPACE = 12 << 30


class WrongError(Exception):
    """The product did something that it must not do with an input."""


def judge(area: Any, base: Path, folder: Path) -> tuple[str, str]:
    """Return what became of an input, and details of a fault."""
    from lfm2gguf.errors import Lfm2ggufError

    _reset_peak()
    before, what = _status("VmRSS"), ""
    try:
        kind = str(area.check(base, folder))
    except Lfm2ggufError:
        kind = "refused"
    except OSError:
        kind = "system error"
    except WrongError as error:
        kind, what = "wrong", str(error)
    except MemoryError as error:
        kind, what = "memory", where(error)
    except BaseException as error:
        kind, what = "traceback", where(error)
    used = _status("VmHWM") - before
    if used > MEMORY and kind in ("ok", "refused", "system error"):
        return "memory", f"more than {MEMORY >> 20} MiB"
    return kind, what


def where(error: BaseException) -> str:
    """Return an exception's kind, and the innermost lines of the product that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/lfm2gguf" in f.filename and "/tests/" not in f.filename]
    last = (own or frames)[-1]
    name = last.filename.rpartition("/lfm2gguf")[2].lstrip("/") or last.filename
    inner = "" if frames[-1] is last else f" <- {Path(frames[-1].filename).name}"
    return f"{type(error).__name__} in {name}, line {last.lineno}{inner}"


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Demand that a refusal leaves no new file in a folder."""
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        if left := sorted(path.name for path in set(folder.iterdir()) - before):
            raise WrongError(f"left behind: {', '.join(left)}"[:200]) from None
        raise


def command(*arguments: object) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and what it printed.

    Raises:
        WrongError: it printed what could command a terminal, or exited with a code of its own.

    """
    from lfm2gguf_cli.main import main

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict, as a real standard output
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before, sys.argv = sys.argv, ["lfm2gguf", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    said = []
    for stream in (out, err):
        stream.seek(0)
        said.append(stream.read())
    if bad := next((c for text in said for c in text if _commands(c)), None):
        raise WrongError(f"{arguments[0]} prints the control character {bad!r}")
    if code not in (0, 1, 2) or (code == 1 and arguments[0] != "doctor"):
        raise WrongError(f"{arguments[0]} exits with {code!r}: {said[1][-160:]}")
    if code == 2 and said[1].strip().count("\n"):
        raise WrongError(f"{arguments[0]} refuses in several lines: {said[1][:160]!r}")
    return int(str(code)), said[0]


def _commands(character: str) -> bool:
    return character not in "\n\t" and (ord(character) < 32 or 127 <= ord(character) < 160)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    """Return bytes of memory (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(key)), 0)
    return 0


def main() -> None:
    """Answer each line, a number and a folder, with lines of JSON: the label, then the verdict."""
    area, seed, base = importlib.import_module(sys.argv[1]), *sys.argv[2:]
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what C code prints

    def say(**found: str) -> None:
        print(json.dumps(found), file=answers, flush=True)

    area.prepare(Path(base))
    say(kind="ready", what="")
    for line in sys.stdin:
        number, _, folder = line.rstrip("\n").partition("\t")
        label = area.make(random.Random(f"{seed} {number}"), Path(base), Path(folder))
        say(label=label)
        kind, what = judge(area, Path(base), Path(folder))
        say(kind=kind, what=what)
