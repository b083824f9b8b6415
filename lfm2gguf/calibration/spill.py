"""What is more than memory should hold: arrays in a file until they are read once, and rows.

The files have no name, and are gone with the process. Where one cannot be written, since the disk
is full, that is an :class:`~lfm2gguf.errors.OutputError`.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.storage import output_errors


class _Nameless:
    """A file without a name in a folder, by default the system's for temporary ones."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        with output_errors(self._folder):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, array: Floats) -> None:
        left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        with output_errors(self._folder):
            while left:
                left = left[self._file.write(left) :]

    def _read(self, shape: tuple[int, ...]) -> Floats:
        array = np.empty(shape, np.float32)
        left = array.reshape(-1).view(np.uint8).data
        while left and (n := self._file.readinto(left)):
            left = left[n:]
        return array


class Spill(_Nameless):
    """Float32 arrays, given back in the order in which they came."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(folder)
        self._shapes: list[tuple[int, ...]] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def put(self, array: Floats) -> None:
        """Keep an array."""
        self._shapes.append(array.shape)
        self._write(array)

    def rewind(self) -> None:
        """Go back to the first array."""
        self._file.seek(0)

    def take(self) -> Floats:
        """Return the next array."""
        return self._read(self._shapes.pop(0))


class Rows(_Nameless):
    """Float32 (count, columns), of which any thread has some rows at a time: as copies."""

    def __init__(self, folder: Path | None, values: Floats) -> None:
        super().__init__(folder)
        self._count, self._columns = values.shape
        self._lock = threading.Lock()
        self[:] = values

    def __getitem__(self, rows: slice) -> Floats:
        start, stop, _ = rows.indices(self._count)
        with self._lock:
            self._file.seek(4 * start * self._columns)
            return self._read((stop - start, self._columns))

    def __setitem__(self, rows: slice, values: Floats) -> None:
        with self._lock:
            self._file.seek(4 * rows.indices(self._count)[0] * self._columns)
            self._write(values)
