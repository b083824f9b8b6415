"""Arrays that are wider than memory should hold, in a file until they are read once."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from lfm2gguf.calibration.grids import Floats


class Spill:
    """A nameless file of float32 arrays, given back in the order in which they came."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving
        self._shapes: list[tuple[int, ...]] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, array: Floats) -> None:
        """Keep an array."""
        self._shapes.append(array.shape)
        self._file.write(np.ascontiguousarray(array).data)

    def rewind(self) -> None:
        """Go back to the first array."""
        self._file.seek(0)

    def take(self) -> Floats:
        """Return the next array."""
        shape = self._shapes.pop(0)
        array = np.frombuffer(self._file.read(4 * math.prod(shape)), np.float32)
        return array.reshape(shape)
