"""Folders for what a run needs while it runs; what a killed one left is removed by the next."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf.caches import cache_folder
from lfm2gguf.storage.partial import LOCKS, locked, opened, turn

PREFIX = "lfm2gguf-scratch-"
LOCK = ".lock"  # a file of its own: writers in the folder lock the folder, one after the other


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder in the one for caches; it is removed on leaving.

    The system's temporary files may be held in memory (tmpfs), and what comes here is more than
    memory should hold. They are taken where the other cannot be written. Folders whose runs have
    ended without removing theirs (their locks can be had) are removed first, as long as they are
    this user's.

    Raises:
        OSError: it cannot be made.

    """
    parent = _parent()
    with contextlib.ExitStack() as stack:
        with turn(parent):
            _sweep(parent)
            folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
            # before it is there: Ctrl-C may come at any moment
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            if LOCKS:
                locked(stack.enter_context(opened(folder / LOCK, os.O_CREAT)))
        yield folder


def _parent() -> Path:
    parent = cache_folder()
    with contextlib.suppress(OSError):
        parent.mkdir(parents=True, exist_ok=True)
    return parent if os.access(parent, os.W_OK) else Path(tempfile.gettempdir())


def _sweep(parent: Path) -> None:
    if not LOCKS:  # Windows does not open folders
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # gone, or another user's
            if folder.lstat().st_uid == os.getuid() and not _is_used(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_used(folder: Path) -> bool:
    """Say whether a run holds the folder's lock; one killed at the start has not made it."""
    try:
        with opened(folder / LOCK, os.O_NOFOLLOW) as descriptor:
            return locked(descriptor) is not True
    except FileNotFoundError:
        return False
