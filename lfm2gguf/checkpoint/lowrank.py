"""Low-rank deltas: what an adapter adds to some rows of a weight.

LoRA (https://arxiv.org/abs/2106.09685) adds ``scale * B @ A``; DoRA
(https://arxiv.org/abs/2402.09353) then gives each row, or for an embedding each column, a
length of its own. As peft computes it (``tuners/lora/layer.py``, ``variants.py``, 0.21), but
always in float32, and with sums of fixed order: the result depends neither on how the rows
are cut nor on the machine, as it would with BLAS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint.safetensors import TensorInfo

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Factor:
    """A matrix that is a part of a tensor: every ``step``-th column from ``first_column`` on.

    ``rows`` are taken from ``first_row`` on; ``flipped`` transposes it.
    """

    tensor: TensorInfo
    first_row: int
    rows: int
    first_column: int
    step: int
    columns: int
    flipped: bool = False

    @classmethod
    def whole(cls, tensor: TensorInfo, *, flipped: bool = False) -> Factor:
        """Take all of a matrix."""
        rows, columns = tensor.shape
        return cls(tensor, 0, rows, 0, 1, columns, flipped)

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns as it is read."""
        return (self.columns, self.rows) if self.flipped else (self.rows, self.columns)

    def below(self, row: int, rows: int) -> Factor:
        """Take some of its rows, as it is read."""
        if self.flipped:
            return replace(self, first_column=self.first_column + row * self.step, columns=rows)
        return replace(self, first_row=self.first_row + row, rows=rows)

    def read(self) -> Floats:
        """Read its values, float32, contiguous."""
        stop = self.first_column + self.columns * self.step
        rows = self.tensor.read(self.first_row, self.first_row + self.rows)
        part = rows[:, self.first_column : stop : self.step]
        return np.ascontiguousarray(part.T if self.flipped else part)


@dataclass(frozen=True, eq=False)
class LowRank:
    """``scale * left @ right`` for some rows of a weight, and DoRA's lengths if there are any.

    ``row_lengths`` is a tensor of one value a row; ``column_factors`` are ready to multiply by.
    """

    left: Factor  # (rows, rank)
    right: Factor  # (rank, columns)
    scale: float
    row_lengths: TensorInfo | None = None
    column_factors: Floats | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns of the weight that it fits."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Count the products that are summed."""
        return self.right.shape[0]

    def below(self, row: int, rows: int) -> LowRank:
        """Take some of the rows; only for deltas without lengths."""
        assert self.row_lengths is None
        return replace(self, left=self.left.below(row, rows))

    def merge(self, weights: Floats, row: int) -> Floats:
        """Merge the delta into rows ``row`` and on of the weight, float32 (n, columns)."""
        merged = self.delta(row, len(weights))
        merged += weights
        if self.row_lengths is not None:
            lengths = self.row_lengths.read(row, row + len(weights))
            merged *= (lengths / _norms(merged))[:, None]
        if self.column_factors is not None:
            merged *= self.column_factors
        return merged

    def delta(self, row: int, rows: int) -> Floats:
        """Compute what is added to these rows: one product of the rank after the other."""
        left, right = self.left.below(row, rows).read(), self.right.read()
        total = np.zeros((rows, right.shape[1]), np.float32)
        product = np.empty_like(total)
        for k in range(len(right)):
            np.multiply(left[:, k, None], right[k], out=product)
            total += product
        total *= np.float32(self.scale)
        return total

    def with_column_lengths(self, lengths: TensorInfo, tiles: Iterable[Floats]) -> LowRank:
        """Set DoRA's lengths of an embedding's columns, given all of its rows in order."""
        row, squares = 0, np.zeros(self.shape[1], np.float64)
        for weights in tiles:
            merged = self.merge(weights, row).astype(np.float64)
            for values in merged:
                squares += np.square(values)
            row += len(weights)
        return replace(self, column_factors=lengths.read() / _roots(squares))


def _norms(weights: Floats) -> Floats:
    """Return each row's Euclidean length, summed from first value to last in float64."""
    squares = np.square(weights.T.astype(np.float64, order="C"))
    return _roots(np.add.reduce(squares, axis=0))


def _roots(squares: NDArray[np.float64]) -> Floats:
    roots: Floats = np.sqrt(squares).astype(np.float32)
    return roots
