"""A load that begins before the file's header has been read, as the file is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf.llamacpp import available_memory, choose, load_ahead
from lfm2gguf.loadable.trial import is_known


@contextlib.contextmanager
def loading_ahead(
    path: Path, device: str, *, mmap: bool, projector: Path | None = None
) -> Iterator[bool]:
    """Let llama.cpp load a file while its header is read and checked, for a model made meanwhile.

    Only one that this machine has loaded before, on the CPU, and for which there is memory. Of any
    other the caller's checks have to come first, and what they find wrong is theirs to say. Tells
    whether it has begun.
    """
    begins = False
    with contextlib.ExitStack() as begun:
        if device in ("auto", "cpu") and is_known(path, projector) and not choose(device):
            free = available_memory()
            if begins := free is None or path.stat().st_size < free:
                begun.enter_context(load_ahead(path, mmap=mmap))
        yield begins
