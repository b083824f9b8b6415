"""IQ2_XXS, IQ2_XS and IQ2_S, compiled: ``quantize_row_iq2_*_impl`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/iq2.py``.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants import grids, iq2
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lattice import make_search
from lfm2gguf.quants.compiled.numbers import F32, I32, ONE, ZERO, kernel, put_half, to_half
from lfm2gguf.quants.compiled.points import (
    BY_SQUARE,
    BY_SQUARE_AND_VARIANCE,
    encoder,
    pack_sevens,
    put_nibbles,
    scale_levels,
    take_sub_block,
)
from lfm2gguf.quants.compiled.withmin import U8

FUDGE = iq2.FUDGE

search_xxs = make_search(iq2.XXS, 32)
search_xs = make_search(iq2.XS, 16)
search_s = make_search(iq2.S, 16)


@kernel
def iq2_xxs_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance = room[2576:2832], room[3088:3104]
    levels, signs, points = ints[768:784], ints[784:1296], ints[1296:2320]
    for j in range(8):
        take_sub_block(planes, important, j, 32, BY_SQUARE, variance, room)
        if not search_xxs(grid, room, ints, scales[LANES * j :], signs[64 * j :], points[64 * j :]):
            return False
    for k in range(count):
        at = 66 * (first + k)
        d = scale_levels(scales, 8, k, F32(31), I32(15), levels)
        put_half(out, at, to_half(d))
        for j in range(8):
            to = at + 2 + 8 * j
            pack_sevens(k, j, 4, grid[4], points, signs, levels[j], to, out, to + 4)
        if d == ZERO:
            out[at + 2 : at + 66] = 0
    return True


@kernel
def iq2_xs_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance = room[2576:2832], room[3088:3104]
    levels, signs, points = ints[768:784], ints[784:1296], ints[1296:2320]
    for j in range(16):
        take_sub_block(planes, important, j, 16, BY_SQUARE, variance, room)
        if not search_xs(grid, room, ints, scales[LANES * j :], signs[32 * j :], points[32 * j :]):
            return False
    for k in range(count):
        at = 74 * (first + k)
        d = scale_levels(scales, 16, k, F32(31), I32(15), levels)
        put_half(out, at, to_half(d))
        for g in range(32):
            point = I32(grid[4][points[LANES * g + k]]) | (signs[LANES * g + k] << I32(9))
            put_half(out, at + 2 + 2 * g, I32(0) if d == ZERO else point)
        put_nibbles(levels, 16, d == ZERO, out, at + 66)
    return True


@kernel
def iq2_s_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance = room[2576:2832], room[3088:3104]
    levels, signs, points = ints[768:784], ints[784:1296], ints[1296:2320]
    for j in range(16):
        take_sub_block(planes, important, j, 16, BY_SQUARE_AND_VARIANCE, variance, room)
        if not search_s(grid, room, ints, scales[LANES * j :], signs[32 * j :], points[32 * j :]):
            return False
    for k in range(count):
        at = 82 * (first + k)
        d = scale_levels(scales, 16, k, F32(31), I32(15), levels)
        put_half(out, at, to_half(d * FUDGE))
        for j in range(8):
            top = I32(0)
            for i in range(4):
                g = 4 * j + i
                point = I32(grid[4][points[LANES * g + k]])
                out[at + 2 + g] = U8(point & I32(255))
                out[at + 34 + g] = U8(signs[LANES * g + k])
                top |= (point >> I32(8)) << I32(2 * i)
            out[at + 66 + j] = U8(top)
        put_nibbles(levels, 16, d == ZERO, out, at + 74)
    return True


ENCODERS = {
    "IQ2_XXS": encoder(iq2_xxs_group, ONE, grids.IQ2_XXS),
    "IQ2_XS": encoder(iq2_xs_group, ONE, grids.IQ2_XS),
    "IQ2_S": encoder(iq2_s_group, F32(2), grids.IQ2_S),
}
