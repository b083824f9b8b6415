"""Git LFS pointers: what a clone has in a file's place where git-lfs is not installed."""

from __future__ import annotations

from pathlib import Path

from lfm2gguf.errors import CheckpointError

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer's first line.
START = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Refuse a pointer; any other file, and one that is not there, is fine.

    Raises:
        CheckpointError: the file is a pointer.

    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(START)) == START
    except OSError:
        return  # whoever reads it says why
    if is_pointer:
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself; in its folder, run git lfs "
            "install and git lfs pull, or download the model with hf download"
        )
