"""What the kernels of the IQ1, IQ2 and IQ3 types share: sub-blocks of a group, and their storage.

From ``quantize_row_iq[123]_*_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.groups import (
    LANES,
    columns,
    gather,
    gather_importance,
    sums_of_squares,
    weigh,
)
from lfm2gguf.quants.compiled.lanes import load, store
from lfm2gguf.quants.compiled.lattice import tables
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    ZERO,
    driver,
    inlined,
    kernel,
    nearest_int_of,
)
from lfm2gguf.quants.compiled.withmin import GROUP, SUPER, U8
from lfm2gguf.quants.grids import Grid, too_large

HALF = F32(0.5)
# What the errors of weights count without importance: x², or x² and a quarter of the variance.
BY_SQUARE, BY_SQUARE_AND_VARIANCE = 0, 1


@kernel
def take_group(
    source: Any, q: Any, rows: Any, n: int, first: int, count: int, factor: Any, x: Any,
    important: Any, planes: Any, room: Any,
) -> None:  # fmt: skip
    """Put 16 super-blocks into planes, their importance beside them, their variances in ``room``.

    The variance is ``factor`` times the mean square.
    """
    gather(source, first, count, SUPER, x)
    if q.size:
        gather_importance(q, rows, n, first, count, SUPER, important)
    for j in range(0, SUPER, 32):
        columns(x, j, SUPER, 32, planes, LANES * j)
    sums_of_squares(planes, SUPER, room)
    store(room, 0, factor * load(room, 0, LANES) / F32(SUPER))


@kernel
def take_sub_block(
    planes: Any, important: Any, j: int, size: int, by: int, variance: Any, room: Any
) -> None:
    """Put sub-block ``j`` of 16 super-blocks where the search takes it, and its weights."""
    x, w = room[16:528], room[1552:2064]
    at = LANES * size * j
    for i in range(size):
        store(x, LANES * i, load(planes, at + LANES * i, LANES))
    if important.size:
        columns(important, size * j, SUPER, size, w, 0)
        weigh(planes, at, size, variance, w)
        return
    of_block = load(variance, 0, LANES) * F32(0.25 * by)
    for i in range(size):
        v = load(x, LANES * i, LANES)
        store(w, LANES * i, of_block + v * v if by else v * v)


@kernel
def scale_levels(scales: Any, n: int, k: int, divisor: Any, top: Any, levels: Any) -> Any:
    """Put integers l for the ``n`` scales of block ``k``, 2 * l + 1 times what is returned."""
    largest = ZERO
    for j in range(n):
        largest = max(largest, scales[LANES * j + k])
    d = largest / divisor
    inverse = ONE / d if d > ZERO else ZERO
    for j in range(n):
        found = nearest_int_of((inverse * scales[LANES * j + k] - ONE) * HALF)
        levels[j] = min(max(found, I32(0)), top)
    return d


@inlined
def put_word(out: Any, at: int, word: Any) -> None:
    """Store the four bytes of an integer."""
    for i in range(4):
        out[at + i] = U8((word >> I32(8 * i)) & I32(255))


@inlined
def put_nibbles(levels: Any, n: int, nothing: Any, out: Any, at: int) -> None:
    """Store ``n`` scales in ``n / 2`` bytes; 0 where there is nothing to scale."""
    for j in range(n // 2):
        out[at + j] = U8(0) if nothing else U8(levels[2 * j] | (levels[2 * j + 1] << I32(4)))


@kernel
def pack_sevens(
    k: int, j: int, groups: int, index: Any, points: Any, signs: Any, level: Any, qs: Any, out: Any,
    at: int,
) -> None:  # fmt: skip
    """Store sub-block ``j``: its points, a byte each, at ``qs``; its signs and scale at ``at``."""
    for g in range(groups):
        out[qs + g] = U8(index[points[LANES * (groups * j + g) + k]])
    word = level << I32(28)
    for g in range(4):
        word |= signs[LANES * (4 * j + g) + k] << I32(7 * g)
    put_word(out, at, word)


def encoder(group: Any, factor: Any, grid: Grid) -> Callable[..., None]:
    """Return the kernel of a type, made around what stores a group of 16 super-blocks.

    The variance is ``factor`` times the mean square. It raises where ggml would give up.
    """

    @driver
    def encode_groups(source: Any, q: Any, rows: Any, n: int, out: Any, grid: Any) -> Any:
        # room: what the search works in, 256 scales, 256 flags, 16 variances, and IQ1's sums;
        # ints: what the search works in, a block's scales, the group's signs and points
        important = np.empty(GROUP if q.size else 0, F32)
        floats, ints = np.empty(5 * GROUP + 256, F32), np.empty(GROUP, I32)
        x, planes, room = floats[:GROUP], floats[GROUP : 2 * GROUP], floats[2 * GROUP :]
        for first in range(0, source.size // SUPER, LANES):
            count = min(LANES, source.size // SUPER - first)
            variance = room[3088:3104]
            take_group(source, q, rows, n, first, count, factor, x, important, planes, variance)
            if not group(grid, important, planes, room, ints, first, count, out):
                return False
        return True

    def encode(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
        if not encode_groups(source, q, rows, n, out, tables(grid)):
            raise too_large()

    return encode
