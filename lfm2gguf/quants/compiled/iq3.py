"""IQ3_XXS and IQ3_S, compiled: ``quantize_row_iq3_*_impl`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/iq3.py``.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants import grids, iq3
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import load, store
from lfm2gguf.quants.compiled.lattice import make_search
from lfm2gguf.quants.compiled.numbers import F32, I32, ZERO, kernel, put_half, to_half
from lfm2gguf.quants.compiled.points import (
    BY_SQUARE,
    encoder,
    pack_sevens,
    put_nibbles,
    scale_levels,
    take_sub_block,
)
from lfm2gguf.quants.compiled.withmin import U8

FUDGE_XXS, FUDGE_S = iq3.FUDGE_XXS, iq3.FUDGE_S

search_xxs = make_search(iq3.XXS, 32)
search_s = make_search(iq3.S, 32)


@kernel
def iq3_xxs_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance = room[2576:2832], room[3088:3104]
    levels, signs, points = ints[768:784], ints[784:1296], ints[1296:2320]
    for j in range(8):
        take_sub_block(planes, important, j, 32, BY_SQUARE, variance, room)
        if not search_xxs(
            grid, room, ints, scales[LANES * j :], signs[64 * j :], points[128 * j :]
        ):
            return False
    for k in range(count):
        at = 98 * (first + k)
        d = scale_levels(scales, 8, k, F32(31), I32(15), levels)
        put_half(out, at, to_half(d * FUDGE_XXS))
        for j in range(8):
            qs, rest = at + 2 + 8 * j, at + 66 + 4 * j
            pack_sevens(k, j, 8, grid[4], points, signs, levels[j], qs, out, rest)
        if d == ZERO:
            out[at + 2 : at + 98] = 0
    return True


@kernel
def iq3_s_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:
    """Fill ``count`` blocks from block ``first`` on."""
    scales, empty, variance = room[2576:2832], room[2832:3088], room[3088:3104]
    levels, signs, points = ints[768:784], ints[784:1296], ints[1296:2320]
    for j in range(8):
        take_sub_block(planes, important, j, 32, BY_SQUARE, variance, room)
        if not search_s(grid, room, ints, scales[LANES * j :], signs[64 * j :], points[128 * j :]):
            return False
        store(empty, LANES * j, load(room, 0, LANES))
    for k in range(count):
        at = 110 * (first + k)
        out[at : at + 110] = 0
        d = scale_levels(scales, 8, k, F32(31), I32(15), levels)
        put_half(out, at, to_half(d * FUDGE_S))
        to = 0  # C goes on to the next bytes only behind a sub-block that is not empty
        for j in range(8):
            for g in range(8):
                point = I32(grid[4][points[LANES * (8 * j + g) + k]])
                out[at + 66 + j] |= U8((point >> I32(8)) << I32(g))
                if empty[LANES * j + k] == ZERO:
                    out[at + 2 + 8 * to + g] = U8(point & I32(255))
            if empty[LANES * j + k] == ZERO:
                for g in range(4):
                    out[at + 74 + 4 * to + g] = U8(signs[LANES * (4 * j + g) + k])
                to += 1
        put_nibbles(levels, 8, d == ZERO, out, at + 106)
    return True


ENCODERS = {
    "IQ3_XXS": encoder(iq3_xxs_group, F32(2), grids.IQ3_XXS),
    "IQ3_S": encoder(iq3_s_group, F32(2), grids.IQ3_S),
}
