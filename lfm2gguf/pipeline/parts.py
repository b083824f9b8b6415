"""Where a tensor's weights lie: parts, each a run of rows in a file, one after another.

A tensor that is stored as it is wanted has one part; experts that are stacked have one each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.ggml import GGMLType


@dataclass(frozen=True)
class Part:
    """Rows ``start:stop`` of the tensor ``origin``, whose rows begin at ``offset`` of ``path``."""

    origin: str
    path: Path
    offset: int  # bytes
    type: GGMLType
    n_per_row: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        """Rows in it."""
        return self.stop - self.start

    @property
    def place(self) -> str:
        """File and tensor, as an error has to say them."""
        return f"{self.path}: tensor {self.origin!r}"

    def stored(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows of the tensor as stored, uint8 (rows, row bytes); they are mapped, not read."""
        row_bytes = self.type.row_bytes(self.n_per_row)
        shape = (stop - start, row_bytes)
        return np.memmap(self.path, np.uint8, "r", self.offset + start * row_bytes, shape)


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
