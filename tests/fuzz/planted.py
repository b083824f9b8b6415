"""An area with faults of every kind, by which the campaign itself is tested."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

from tests.fuzz.worker import WrongError, command, nothing_left

KINDS = ("ok", "refused", "traceback", "hang", "loop", "died", "memory", "wrong", "left", "command")


def prepare(base: Path) -> None:
    """Nothing is needed."""


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Name what is to happen."""
    kind = draw.choice(KINDS)
    (folder / "kind").write_text(kind)
    return kind


def check(base: Path, folder: Path) -> str:
    """Let it happen."""
    from lfm2gguf.errors import GGUFError
    from lfm2gguf.json_text import parse_json

    kind = (folder / "kind").read_text()
    if kind == "refused":
        raise GGUFError("as it should be")
    if kind == "traceback":
        parse_json(json)  # type: ignore[arg-type]
    elif kind == "hang":
        time.sleep(600)
    elif kind == "loop":
        while True:
            pass
    elif kind == "died":
        os.abort()
    elif kind == "memory":
        len(b"\1" * (600 << 20))
    elif kind == "wrong":
        raise WrongError("told by the area")
    elif kind == "left":
        with nothing_left(folder):
            (folder / "x.partial").touch()
            raise GGUFError("half done")
    elif kind == "command":
        command("doctor", folder / "missing", "--no-such-option")
    return "ok"
