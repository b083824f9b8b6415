"""A file under its name only when it is whole.

It grows under a temporary name beside its target, one that nobody can foresee, and gets the
target's name when it is complete: nobody ever sees half a file, and what was there before stays
until then. What a killed run leaves is removed by the next one (:mod:`lfm2gguf.storage.partial`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf.errors import OutputError
from lfm2gguf.storage.partial import begin, partial_of


@contextlib.contextmanager
def create(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield the temporary path of an empty file beside ``target``, which the caller fills.

    On leaving it gets the name ``target``; after an exception it is removed.

    Raises:
        OutputError: the target exists, cannot be written, or another run is writing it.

    """
    check_target(target, overwrite=overwrite)
    with contextlib.ExitStack() as stack:
        partial = partial_of(target)
        stack.callback(_remove, partial)  # before it is there: Ctrl-C may come at any moment
        with output_errors(target):
            lock = stack.enter_context(begin(partial, target))
        check_target(target, overwrite=overwrite)  # who held it may have ended just now
        yield partial
        with output_errors(target):
            if os.name == "nt":  # what is open there cannot be renamed
                lock.close()
            partial.replace(target)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def write_whole(target: Path, content: str | bytes, *, overwrite: bool = False) -> None:
    """Write a file's content, text as UTF-8, whole or not at all.

    What of a text is not UTF-8, such as a file's name, is written as the console shows it.

    Raises:
        OutputError: the target exists, cannot be written, or the disk is full.

    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with create(target, overwrite=overwrite) as partial, output_errors(target):
        partial.write_bytes(data)


def check_target(target: Path, *, overwrite: bool = False) -> None:
    """Refuse a target that cannot or must not be written, before any work is done.

    Raises:
        OutputError: saying which, and what to do.

    """
    if str(target) == "-":
        raise OutputError("-: this is not written to standard output; give the name of a file")
    if "\0" in str(target):
        raise OutputError(f"{str(target)!r}: is no file's name; give another")
    with output_errors(target):  # such as a name that is too long to be one
        _check_place(target, overwrite)


def _check_place(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is a device or a pipe, which a file must not replace")
    if os.path.lexists(target) and not overwrite:  # or is a link that leads nowhere
        raise OutputError(f"{target}: exists already; give overwrite=True (--force) to replace it")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent}: no such folder; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target.parent}: this folder cannot be written; choose another")


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn what goes wrong with writing ``target`` into one line.

    Raises:
        OutputError: the file cannot be written, or the disk is full.

    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{target}: no space left on the disk; free some, or choose another folder"
            ) from error
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
