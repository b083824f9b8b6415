"""Temporary files beside their targets, and who is still writing them.

A writer holds a lock on its file, which the system takes away when the process ends, however it
ends. So a file whose lock can be had was left behind by a killed run, and is removed by the next
run that writes into the folder; one whose lock cannot be had is being written.

Locks are ``flock``'s, which belong to one opening of a file: those of ``fcntl`` would go when a
worker's or the writer's own second opening is closed. Windows has neither, and needs none: a file
that is open there cannot be removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lfm2gguf.errors import OutputError

if sys.platform != "win32":
    import fcntl

SUFFIX = ".partial"
NAME = re.compile(r"(?P<stem>.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
LONGEST = 255  # bytes of a file's name, where the system does not say
LOCKS = sys.platform != "win32"
PATIENCE = 2.0  # seconds for others to look through the folder


def partial_of(target: Path) -> Path:
    """Return a temporary name for a target, beside it, that nobody can foresee."""
    end = f".{os.urandom(4).hex()}{SUFFIX}"
    return target.with_name(_stem(target, _longest(target.parent) - len(end)) + end)


def _stem(target: Path, room: int) -> str:
    """Return the target's name; of one without room for more, the beginning and a digest of all.

    It is the same in every run: by it another one finds that the target is being written.
    """
    name = os.fsencode(target.name)
    if len(name) <= room:
        return target.name
    end = f"~{hashlib.sha256(name).hexdigest()[:8]}"
    return name[: room - len(end)].decode(errors="ignore") + end  # no half of a character


def _longest(folder: Path) -> int:
    """Return how many bytes a file's name may have in a folder."""
    if hasattr(os, "pathconf"):
        with contextlib.suppress(OSError, ValueError):
            return os.pathconf(folder, "PC_NAME_MAX")
    return LONGEST


def begin(partial: Path, target: Path) -> BinaryIO:
    """Make a temporary file of a target; return the opening that holds its lock.

    What killed runs left in the folder is removed. After an exception, which an interrupt may be
    at any moment, the file may be there.

    Raises:
        OutputError: another run is writing the target.
        OSError: the file cannot be made.

    """
    with turn(partial.parent):
        if target_of(partial).name in _sweep(partial.parent):
            raise OutputError(
                f"{target}: another run is writing it now; wait until it has ended, or give "
                "another name"
            )
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(partial.open("xb"))
            locked(file.fileno())
            stack.pop_all()
            return file


def target_of(partial: Path) -> Path:
    """Return the name that a file under a temporary name will get, of a long one what is in it."""
    return partial.with_name(partial.name.removesuffix(SUFFIX).rpartition(".")[0])


def _sweep(folder: Path) -> set[str]:
    """Remove what nobody is writing; return the stems of those that are being written."""
    found = [match for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    return {match["stem"] for match in found if _is_written(folder / match[0])}


def _is_written(path: Path) -> bool:
    """Say whether somebody is writing a temporary file; if nobody is, remove it."""
    try:
        with opened(path, os.O_NOFOLLOW | os.O_NONBLOCK if LOCKS else 0) as descriptor:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            held = is_file and locked(descriptor)
            if held and LOCKS:
                path.unlink()
        if held and not LOCKS:
            path.unlink()
    except OSError as error:  # gone; another user's; on Windows open
        return isinstance(error, PermissionError) and not LOCKS
    return held is None


def locked(descriptor: int) -> bool | None:
    """Lock an open file: True; None if another has the lock, False where there are no locks."""
    if not LOCKS:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else False
    return True


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Let one process at a time look through a folder: of two that begin, one is the second."""
    if not LOCKS:  # Windows does not open folders
        yield
        return
    with opened(folder, 0) as descriptor:
        end = time.monotonic() + PATIENCE
        while locked(descriptor) is None and time.monotonic() < end:
            time.sleep(0.01)
        yield


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file or folder for reading, until the end of the block; the descriptor."""
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
