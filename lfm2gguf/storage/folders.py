"""A folder to write into: which targets are one, and one that is made for what is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf.storage.output import output_errors


def is_folder(target: str | Path) -> bool:
    """Say whether a target is a folder: one that is there, or a text that ends like one."""
    ends = (os.sep, os.altsep or os.sep)
    return Path(target).is_dir() or (isinstance(target, str) and target.endswith(ends))


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and those above it, where they are missing; after an error they are gone.

    Raises:
        OutputError: it cannot be made.

    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # never made, or somebody else's files are in it
                path.rmdir()
        raise
