"""IQ1_S and IQ1_M, compiled: ``quantize_row_iq1_*_impl`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/iq1.py``. Codes
are those of three levels in a grid, signs 1 where a group's levels are moved down.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants import grids
from lfm2gguf.quants.compiled.across import any_true
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import absolute, load, most, splat, store, to_float, where
from lfm2gguf.quants.compiled.lattice import OFF_GRID, TAME, make_nearest, turned
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    ZERO,
    inlined,
    kernel,
    level,
    put_half,
    to_half,
)
from lfm2gguf.quants.compiled.points import (
    BY_SQUARE,
    encoder,
    scale_levels,
    take_sub_block,
)
from lfm2gguf.quants.compiled.splits import (
    LEAST_DOWN,
    LEAST_UP,
    best_split_m,
    best_split_s,
    rank,
)
from lfm2gguf.quants.compiled.withmin import GROUP, U8
from lfm2gguf.quants.iq1 import FUDGE_M, FUDGE_S

HALF = F32(0.5)
LEAST_S, LEAST_M = F32(1e-12), F32(1e-7)  # the largest weight of a sub-block that is not empty

nearest = make_nearest(8, 2, odd=False)


@inlined
def value_of(code: Any, i: int, minus: Any) -> Any:
    """Return what level ``i`` of the groups of these codes stands for."""
    rung = to_float((code >> I32(2 * i)) & I32(3))
    return rung + where(minus == I32(0), LEAST_UP, splat(LEAST_DOWN, LANES))


@kernel
def set_points(grid: Any, room: Any, groups: int, minus: Any, careful: bool, codes: Any) -> Any:
    """Replace codes that are no points by those of the nearest ones, flagged."""
    points, rows, weights = grid[4], room[528:1040], room[1040:1552]
    for at in range(groups * LANES):
        code = codes[at]
        point = I32(points[code])
        if point < 0:
            row = I32(grid[5][code])
            begin, lowest = 8 * (at % LANES * groups + at // LANES), LEAST_UP
            if minus[at]:
                lowest = LEAST_DOWN
            code = nearest(grid, row, rows, weights, begin, room[at % LANES], lowest, careful)
            if code < 0:
                return False
            codes[at] = code | OFF_GRID
    return True


@kernel
def fit(
    grid: Any, room: Any, size: int, least: Any, work: Any, ints: Any, scales: Any, minus: Any,
    codes: Any,
) -> Any:  # fmt: skip
    """Fit 16 sub-blocks, whose planes ``room`` holds from 16 on, with weights from 1552 on.

    Returns False where weights are so large that ggml gives up.
    """
    x, w, best = room[16:528], room[1552:2064], room[2064:2096]
    ranks, choices, groups = ints[:512], ints[512:528], size // 8
    rank(x, size, ranks)
    if size == 32:
        best_split_s(x, w, size, ranks, work, best, choices)
    else:
        best_split_m(x, w, size, ranks, work, best, choices)
    peak, tame = splat(ZERO, LANES), splat(ZERO, LANES) == ZERO
    for i in range(size):
        v = absolute(load(x, LANES * i, LANES))
        peak = most(peak, v)
        tame = tame & (v <= TAME) & (load(w, LANES * i, LANES) <= TAME)
    everywhere = splat(ZERO, LANES) == ZERO
    scale, choice = load(best, 0, LANES), load(choices, 0, LANES)
    empty, flipped = (peak < least) | (choice < I32(0)), scale < ZERO
    scale = where(empty, ZERO, where(flipped, ZERO - scale, scale))
    first, second = choice >> I32(16), (choice >> I32(8)) & I32(255)
    for k in range(groups):
        down = choice & I32(1)
        if size == 16 and k == 0:
            down = (choice >> I32(1)) & I32(1)
        down = where(empty, I32(0), where(flipped, I32(1) - down, down))
        store(minus, LANES * k, down)
        code = splat(I32(0), LANES)
        for i in range(8):
            place = load(ranks, LANES * (8 * k + i), LANES)
            rung = where(place >= first, splat(I32(1), LANES), I32(0))
            rung = rung + where(place >= second, splat(I32(1), LANES), I32(0))
            rung = where(empty, I32(1), where(flipped, I32(2) - rung, rung))
            code = code | (rung << I32(2 * i))
        store(codes, LANES * k, code)
    turned(x, size, room[528:1040])
    turned(w, size, room[1040:1552])
    store(room, 0, scale)
    if not set_points(grid, room, groups, minus, any_true(tame ^ everywhere), codes):
        return False
    off = splat(I32(0), LANES)
    sum_qx, sum_q2 = splat(ZERO, LANES), splat(ZERO, LANES)
    for k in range(groups):
        code, down = load(codes, LANES * k, LANES), load(minus, LANES * k, LANES)
        off = off | code
        for i in range(8):
            at = LANES * (8 * k + i)
            q = value_of(code, i, down)
            weighted = load(w, at, LANES) * q
            sum_qx = sum_qx + weighted * load(x, at, LANES)
            sum_q2 = sum_q2 + weighted * q
        code = where(empty, splat(I32(grid[3][0]), LANES), code & I32(OFF_GRID - 1))
        store(codes, LANES * k, code)
    again = ((off & I32(OFF_GRID)) != I32(0)) & (empty ^ everywhere)
    again = again & (sum_qx > ZERO) & (sum_q2 > ZERO)
    scale = where(again, sum_qx / sum_q2, scale)
    store(scales, 0, scale)
    return not any_true(scale != scale)


@kernel
def iq1_s_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:  # fmt: skip
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance, work = room[2576:2832], room[3088:3104], room[GROUP:]
    ranks, levels, minus, codes = ints[:528], ints[528:784], ints[784:1296], ints[1296:1808]
    for j in range(8):
        take_sub_block(planes, important, j, 32, BY_SQUARE, variance, room)
        if not fit(
            grid, room, 32, LEAST_S, work, ranks, scales[LANES * j :], minus[64 * j :],
            codes[64 * j :],
        ):  # fmt: skip
            return False
    for k in range(count):
        at = 50 * (first + k)
        d = scale_levels(scales, 8, k, F32(15), I32(7), levels)
        put_half(out, at, to_half(d * FUDGE_S))
        for j in range(8):
            high = (levels[j] | minus[64 * j + k] << I32(3)) << I32(12)
            if d == ZERO:
                high = I32(0)
            for g in range(4):
                point = I32(grid[4][codes[LANES * (4 * j + g) + k]])
                out[at + 2 + 4 * j + g] = U8(point & I32(255))
                high |= (point >> I32(8)) << I32(3 * g)
            put_half(out, at + 34 + 2 * j, high)
    return True


@kernel
def fit_blocks(
    planes: Any, w: Any, scales: Any, minus: Any, codes: Any, levels: Any, fitted: Any
) -> None:
    """Make integers of the scales of 16 super-blocks of IQ1_M, and fit their own scales again."""
    largest = splat(ZERO, LANES)
    for j in range(16):
        largest = most(largest, load(scales, LANES * j, LANES))
    d = largest / F32(15)
    inverse = where(d > ZERO, ONE / d, ZERO)
    sum_qx, sum_q2 = splat(ZERO, LANES), splat(ZERO, LANES)
    for j in range(16):
        t = (inverse * load(scales, LANES * j, LANES) - ONE) * HALF
        found = level(t, I32(0), I32(7))
        store(levels, LANES * j, found)
        factor = to_float(found + found + I32(1))
        for k in range(2):
            at = LANES * (2 * j + k)
            code, down = load(codes, at, LANES), load(minus, at, LANES)
            for i in range(8):
                q, to = value_of(code, i, down) * factor, LANES * (16 * j + 8 * k + i)
                weighted = load(w, to, LANES) * q
                sum_qx = sum_qx + weighted * load(planes, to, LANES)
                sum_q2 = sum_q2 + weighted * q
    store(fitted, 0, where(sum_q2 > ZERO, sum_qx / sum_q2, d))
    store(fitted, LANES, largest)


@kernel
def iq1_m_group(
    grid: Any, important: Any, planes: Any, room: Any, ints: Any, first: int, count: int, out: Any
) -> Any:  # fmt: skip
    """Fill ``count`` blocks from block ``first`` on."""
    scales, variance, work = room[2576:2832], room[3088:3104], room[GROUP:]
    ranks, levels, minus, codes = ints[:528], ints[528:784], ints[784:1296], ints[1296:1808]
    fitted, weights = room[3104:3136], work[4288:]
    for j in range(16):
        take_sub_block(planes, important, j, 16, BY_SQUARE, variance, room)
        for i in range(16):
            store(weights, 256 * j + LANES * i, load(room, 1552 + LANES * i, LANES))
        if not fit(
            grid, room, 16, LEAST_M, work, ranks, scales[LANES * j :], minus[32 * j :],
            codes[32 * j :],
        ):  # fmt: skip
            return False
    fit_blocks(planes, weights, scales, minus, codes, levels, fitted)
    for k in range(count):
        at = 56 * (first + k)
        half, nothing = I32(to_half(fitted[k] * FUDGE_M)), fitted[LANES + k] == ZERO
        for g in range(32):
            to = LANES * g + k
            point = I32(grid[4][codes[to]])
            out[at + g] = U8(point & I32(255))
            nibble = U8(point >> I32(8)) | U8(0 if nothing else minus[to] << I32(3))
            if g % 2:
                out[at + 32 + g // 2] |= U8(nibble << 4)
            else:
                out[at + 32 + g // 2] = nibble
        for i in range(4):
            word = ((half >> I32(4 * i)) & I32(15)) << I32(12)
            for m in range(4):
                word |= levels[LANES * (4 * i + m) + k] << I32(3 * m)
            put_half(out, at + 48 + 2 * i, I32(0) if nothing else word)
    return True


ENCODERS = {
    "IQ1_S": encoder(iq1_s_group, F32(2), grids.IQ1),
    "IQ1_M": encoder(iq1_m_group, F32(2), grids.IQ1),
}
