"""From an importance matrix to the weights of squared errors, as ggml's ``quantize_*`` do it.

A column's importance is how large its input is: the mean of its squares. With importance ``q``
ggml looks for the block that has the least sum of ``w * error²``, where ``w`` is, for most
types, ``q * sqrt(variance + x²)``: ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import QuantizationError
from lfm2gguf.quants.codec import Codec, Floats, c_arithmetic
from lfm2gguf.quants.floats import bf16_to_f32

SLAB = 1 << 16  # weights of rows that are squared at a time


class Importance:
    """The importance of the columns of an array, asked for by its blocks."""

    def __init__(self, codec: Codec, array: npt.NDArray[Any], importance: npt.NDArray[Any]) -> None:
        _check(array, importance)
        size = codec.type.block_size
        self._given = given = np.asarray(importance, np.float32)
        blocks = given.reshape(*given.shape[:-1], -1, size)
        shape = (*array.shape[:-1], array.shape[-1] // size, size)
        self._codec, self._array = codec, array
        self._blocks = np.broadcast_to(blocks, shape)

    @property
    def rows(self) -> tuple[Floats, npt.NDArray[np.intp]]:
        """The rows of importance, and which of them is that of each row of the array."""
        n = self._given.shape[-1]
        given = np.ascontiguousarray(self._given).reshape(-1, n)
        number = np.arange(len(given)).reshape(self._given.shape[:-1])
        return given, np.broadcast_to(number, self._array.shape[:-1]).reshape(-1)

    @cached_property
    def _of_rows(self) -> Floats:
        """The sum of the squares of each block's row."""
        return np.repeat(_row_sums(self._array), self._blocks.shape[-2])

    def weights(self, x: Floats, start: int) -> Floats | None:
        """Return the weights of the errors of the blocks ``x`` (n, block size), from ``start`` on.

        None where the type does not ask for importance.
        """
        weighting = self._codec.weighting
        if weighting is None:
            return None
        blocks = np.arange(start, start + len(x))
        weights: Floats = self._blocks[np.unravel_index(blocks, self._blocks.shape[:-1])]
        if weighting.variance is None:
            return weights
        squares = x * x
        if not weighting.of_row:
            variance = weighting.variance(sums_of_rows(squares), x.shape[1])
        else:
            length = self._blocks.shape[-1] * self._blocks.shape[-2]
            variance = weighting.variance(self._of_rows[blocks], length)
        squares += variance[:, None]
        weights *= np.sqrt(squares, out=squares)
        return weights


def sums_of_rows(x: Floats) -> Floats:
    """Return the sum of each row, number after number, as C adds."""
    total: Floats = np.add.accumulate(x, axis=1)[:, -1]
    return total


def _row_sums(array: npt.NDArray[Any]) -> Floats:
    """The sum of the squares of each row of an array."""
    rows = array.reshape(-1, array.shape[-1])
    sums = np.empty(len(rows), np.float32)
    step = max(1, SLAB // max(1, rows.shape[1]))
    with c_arithmetic():
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            x = bf16_to_f32(part) if part.dtype == np.uint16 else part.astype(np.float32)
            sums[start : start + step] = sums_of_rows(np.multiply(x, x, out=x))
    return sums


def _check(array: npt.NDArray[Any], importance: npt.NDArray[Any]) -> None:
    n = array.shape[-1]
    try:
        fits = importance.shape[-1:] == (n,)
        np.broadcast_shapes(importance.shape, array.shape)
        fits &= importance.ndim <= array.ndim
    except ValueError:
        fits = False
    if not fits:
        raise QuantizationError(
            f"importance of shape {importance.shape} is not that of weights of shape "
            f"{array.shape}: one number a column is needed, ({n},)"
        )
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise QuantizationError(
            "importance must be finite and not negative: mean squares of the layer's input"
        )
