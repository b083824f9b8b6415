"""What the kernels of super-blocks share: sub-blocks as columns, and levels from their scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Bytes, Floats, scratch
from lfm2gguf.quants.search import ONE, round_levels

Indices = npt.NDArray[np.intp]


def as_columns(x: Floats, sub_block: int) -> list[Floats]:
    """Return the sub-blocks as columns, and four arrays of that shape to work in."""
    columns, *work = scratch(5, (sub_block, x.size // sub_block))
    np.copyto(columns, x.reshape(-1, sub_block).T)
    return [columns, *work]


def some(array: Floats, at: Indices) -> Floats:
    """Return a few of the columns, C-contiguous."""
    taken: Floats = np.take(array, at, axis=1)
    return taken


def scaled(d: npt.NDArray[np.float16], sc: npt.NDArray[np.integer[Any]]) -> Floats:
    """Return the scale of each sub-block, as dequantization will see it."""
    scale: Floats = d.astype(np.float32)[:, None] * sc
    return scale


def divided(t: Floats, d: Floats, low: int, high: int) -> Bytes:
    """Return the levels t / d, plus ``-low``; arbitrary where d is 0. Overwrites ``t``."""
    np.divide(t, np.where(d == 0, ONE, d), out=t)
    round_levels(t, low, high, float(t.min()), float(t.max()))
    if low:
        t -= np.float32(low)
    return t.astype(np.uint8)


def unscaled(columns: Floats, d: Floats, levels: Bytes) -> Indices:
    """Return the columns whose scale came out 0 except those of zeros, whose levels become 0."""
    at = np.flatnonzero(d == 0)
    levels[:, at] = 0
    return at[columns[:, at].any(axis=0)]


def pack_pairs(levels: Bytes, qs: Bytes) -> None:
    """Store levels of two bits (16, 16n) as Q2_K and Q3_K do.

    Byte j of 32 for each half of 128 weights: weights j, j + 32, j + 64, j + 96, low bits first.
    """
    n = len(qs)
    quarters = levels.T.reshape(n, 2, 4, 32)
    packed = quarters[:, :, 0] | quarters[:, :, 1] << 2 | quarters[:, :, 2] << 4
    qs.reshape(n, 2, 32)[:] = packed | quarters[:, :, 3] << 6


def unpack_pairs(qs: Bytes) -> Bytes:
    """Return levels of two bits, (n, 16, 16), from what :func:`pack_pairs` stores."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    quarters: Bytes = qs.reshape(-1, 2, 1, 32) >> shifts & np.uint8(3)
    return quarters.reshape(-1, 16, 16)
