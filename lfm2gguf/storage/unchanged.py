"""Whether files are still what they were when their headers were read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lfm2gguf.errors import TensorError


@dataclass(frozen=True)
class Stamp:
    """A file's size in bytes and the time it was last written (ns), as its folder gives them."""

    path: Path
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file.

        Raises:
            TensorError: it is gone.

        """
        try:
            found = path.stat()
        except OSError as error:
            raise gone(path, error.strerror or str(error)) from error
        return cls(path, found.st_size, found.st_mtime_ns)


def stamps(paths: Iterable[Path]) -> tuple[Stamp, ...]:
    """Look at files before they are read.

    Raises:
        TensorError: one of them is gone.

    """
    return tuple(Stamp.of(path) for path in sorted(set(paths)))


def check_unchanged(before: Iterable[Stamp]) -> None:
    """Look at files again after they were read.

    Raises:
        TensorError: one of them was written or removed meanwhile.

    """
    for stamp in before:
        now = Stamp.of(stamp.path)
        if now.size != stamp.size:
            raise gone(stamp.path, f"it had {stamp.size} bytes and has {now.size}")
        if now != stamp:
            raise gone(stamp.path, "it was written while it was read")


def gone(path: Path, what: str) -> TensorError:
    """Return the error of a file that is not what it was."""
    return TensorError(
        f"{path}: was changed or removed meanwhile ({what}); start again when nobody writes it"
    )
