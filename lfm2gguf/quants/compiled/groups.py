"""Sixteen blocks side by side: how the weights of a group lie while its scales are searched.

A lane is a block, so that its sums run over its weights one after another, in C's order.
``x`` holds a group as it is stored, block after block; ``planes`` hold the same with number
``i`` of block ``k`` at ``16 * i + k``. A group that is not full is filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.across import any_true
from lfm2gguf.quants.compiled.lanes import bits, load, most, splat, sqrt, store, transpose
from lfm2gguf.quants.compiled.numbers import EXPONENT, F32, I32, ZERO, driver, kernel, read

LANES = 16


@driver
def aligned(n: int) -> Any:
    """Return ``n`` float32 from a boundary of 64 bytes on: no vector lies in two cache lines."""
    room = np.empty(n + LANES, F32)
    start = (-room.ctypes.data % 64) // 4
    return room[start : start + n]


@kernel
def gather(source: Any, first: int, count: int, size: int, x: Any) -> Any:
    """Put ``count`` blocks of ``size`` weights, 16 at most, from block ``first`` on into ``x``.

    Returns whether all are finite.
    """
    highest = splat(I32(0), 32)
    for i in range(0, count * size, 32):
        v = read(source, first * size + i)
        store(x, i, v)
        highest = most(highest, bits(v) & I32(0x7FFFFFFF))
    for i in range(count * size, LANES * size, 32):
        store(x, i, splat(ZERO, 32))
    return not any_true(highest >= EXPONENT)


@kernel
def gather_importance(
    q: Any, rows: Any, n: int, first: int, count: int, size: int, out: Any
) -> None:
    """Put the importance of the same blocks into ``out``.

    ``q`` has rows of ``n`` numbers, of which ``rows`` names the one of each row of weights.
    """
    per = n // size
    for k in range(count):
        block = first + k
        at = rows[block // per] * n + block % per * size
        for i in range(0, size, 32):
            store(out, k * size + i, load(q, at + i, 32))
    for i in range(count * size, LANES * size, 32):
        store(out, i, splat(ZERO, 32))


@kernel
def columns(x: Any, at: int, stride: int, size: int, planes: Any, to: int) -> None:
    """Put ``size`` numbers (16 or 32) of 16 blocks, ``stride`` apart, into planes."""
    for i in range(0, size, 16):
        transpose(x, at + i, stride, planes, to + LANES * i, LANES)


@kernel
def sums_of_squares(planes: Any, size: int, sums: Any) -> None:
    """Put the sum of the squares of each block of ``size`` weights into ``sums``."""
    total = splat(ZERO, LANES)
    for i in range(size):
        x = load(planes, LANES * i, LANES)
        total = total + x * x
    store(sums, 0, total)


@kernel
def weigh(planes: Any, at: int, size: int, variance: Any, w: Any) -> None:
    """Multiply importance, the planes ``w``, by ``sqrt(variance + x²)`` of the weights."""
    of_block = load(variance, 0, LANES)
    for i in range(size):
        x = load(planes, at + LANES * i, LANES)
        store(w, LANES * i, load(w, LANES * i, LANES) * sqrt(of_block + x * x))


@driver
def variances_of_rows(source: Any, n: int) -> Any:
    """Return the mean square of each row of ``n`` weights, a multiple of 32, as C sums it."""
    rows = source.size // n
    x, planes = np.empty(LANES * 32, F32), np.empty(LANES * 32, F32)
    sums, found = np.empty(LANES, F32), np.empty(rows, F32)
    for first in range(0, rows, LANES):
        count = min(LANES, rows - first)
        total = splat(ZERO, LANES)
        for start in range(0, n, 32):
            for k in range(count):
                store(x, 32 * k, read(source, (first + k) * n + start))
            columns(x, 0, 32, 32, planes, 0)
            for i in range(32):
                v = load(planes, LANES * i, LANES)
                total = total + v * v
        store(sums, 0, total / F32(n))
        for k in range(count):
            found[first + k] = sums[k]
    return found
