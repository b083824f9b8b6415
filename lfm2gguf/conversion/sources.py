"""Where a tensor's weights lie: parts, each a run of rows in a file, one after another.

A tensor that is stored as it is wanted has one part; experts that are stacked have one each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import LowRank
from lfm2gguf.ggml import GGMLType
from lfm2gguf.storage import StoredRows

NARROW: dict[GGMLType | None, type[Any]] = {GGMLType.F16: np.float16, GGMLType.BF16: np.uint16}


@dataclass(frozen=True)
class Part:
    """Rows ``start:stop`` of the tensor ``origin``, whose rows are ``source``.

    With ``compute`` they are of what it makes of ``origin`` and others, float32. A worker calls
    it, and for each tile again: it must be picklable, and the tensor small.
    """

    origin: str
    source: StoredRows
    start: int
    stop: int
    delta: LowRank | None = None  # added to them
    compute: Callable[[], NDArray[np.float32]] | None = None

    @property
    def path(self) -> Path:
        """The file that it lies in."""
        return self.source.path

    @property
    def type(self) -> GGMLType | None:
        """The ggml type that its rows are stored in; None: in none."""
        return self.source.dtype.type

    @property
    def n_per_row(self) -> int:
        """Weights in a row."""
        return self.source.shape[1]

    @property
    def n_rows(self) -> int:
        """Rows in it."""
        return self.stop - self.start

    @property
    def place(self) -> str:
        """File and tensor, as an error has to say them."""
        return f"{self.path}: tensor {self.origin!r}"

    def stored(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return rows of the tensor as stored, uint8 (rows, row bytes)."""
        if self.compute is not None:
            rows = self.compute().reshape(-1, self.n_per_row)[start:stop]
            return np.ascontiguousarray(rows, np.float32).view(np.uint8)
        return self.source.rows(start, stop)

    def expect(self, start: int, stop: int) -> None:
        """Have the system begin to read rows that will soon be asked for."""
        if self.compute is None:
            self.source.expect(start, stop)

    def tiles(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield rows as stored, a tile at a time with its first row."""
        for first, last in self.source.spans(start, stop):
            yield first, self.stored(first, last)

    def weights(self, stored: NDArray[np.uint8], start: int) -> NDArray[np.float32]:
        """Decode stored rows from ``start`` on: float32 (rows, n)."""
        weights = self.source.numbers(stored, start)
        return self.delta.merge(weights, start - self.start) if self.delta else weights

    @property
    def dtype(self) -> np.dtype[Any]:
        """What :meth:`numbers` are."""
        narrow = None if self.delta or self.compute else NARROW.get(self.type)
        return np.dtype(narrow or np.float32)

    def numbers(self, stored: NDArray[np.uint8], start: int) -> NDArray[Any]:
        """Return :meth:`weights`, but float16 as it is and bfloat16 as its bits in uint16."""
        if self.dtype == np.float32:
            return self.weights(stored, start)
        return stored.view(self.dtype)


@dataclass(frozen=True)
class SourceTensor:
    """A tensor and where its weights lie; ``shape`` is in NumPy's order.

    ``kept`` is the type it has in the new file where the mixture does not change it.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    kept: GGMLType

    def __post_init__(self) -> None:
        assert sum(part.n_rows for part in self.parts) == math.prod(self.shape[:-1]), self.name
        assert all(part.n_per_row == self.shape[-1] for part in self.parts), self.name
