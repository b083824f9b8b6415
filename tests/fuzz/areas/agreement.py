"""Changed GGUF files to our reader and to ggml's: what ggml refuses is refused here, too."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fuzz.areas import gguf
from tests.fuzz.worker import WrongError
from tests.gguf_file.test_agreement import ggml_accepts, we_accept

prepare = gguf.prepare


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a file."""
    return gguf.make(draw, base, folder)


def check(base: Path, folder: Path) -> str:
    """Ask both."""
    path = folder / "f.gguf"
    ours, theirs = we_accept(path), ggml_accepts(path)
    if ours and not theirs:
        raise WrongError("the reader takes what ggml refuses")
    return "ok" if ours else "refused by both" if not theirs else "refused by us alone"
