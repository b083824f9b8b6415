"""The search of the IQ2 and IQ3 types, compiled: scales of sixteen sub-blocks side by side.

``quantize_row_iq[23]_*_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, as in
``quants/lattice.py``. Where a group of levels is no point of the grid, its neighbours are
compared side by side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.compiled.across import any_true, first_true, smallest
from lfm2gguf.quants.compiled.descent import positive_scale
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    load,
    most,
    splat,
    sqrt,
    store,
    to_float,
    transpose,
    where,
)
from lfm2gguf.quants.compiled.numbers import F32, I32, ONE, ZERO, inlined, kernel, level
from lfm2gguf.quants.grids import Grid
from lfm2gguf.quants.lattice import Lattice

FLOAT_MAX = np.finfo(np.float32).max
HALF = F32(0.5)
TAME = F32(1e9)  # of weights and what they count below that no error overflows
OFF_GRID = 1 << 16  # the flag of a point that its group's levels were not
# Of levels, as the digits of a number, their point, or -1 less their row of neighbours; where each
# row's neighbours begin, 16 at a time, and their codes; the codes of points; of
# codes the points and the rows.
Tables = tuple[npt.NDArray[Any], ...]


@lru_cache(maxsize=8)
def tables(grid: Grid) -> Tables:
    """Return a grid as the kernels read it."""
    near, row, counts = grid.neighbours
    slots = -(-counts // LANES)
    starts = np.concatenate([[0], np.cumsum(slots)])
    padded = np.concatenate([near, np.repeat(near[:, :1], LANES, axis=1)], axis=1)
    used = np.arange(padded.shape[1]) < (slots * LANES)[:, None]
    index = np.where(grid.index < 0, -1 - row, grid.index)
    levels = np.indices((grid.top + 1,) * grid.size).reshape(grid.size, -1)[::-1]
    return (
        index[(levels << grid.bits * np.arange(grid.size)[:, None]).sum(axis=0)].astype(np.int16),
        starts.astype(np.int32),
        grid.points[padded[used]].astype(np.uint16),
        grid.points.astype(np.int32),
        grid.index,
        row.astype(np.int16),
    )


def make_nearest(size: int, bits: int, *, odd: bool = True) -> Any:
    """Make the search among neighbours of groups of ``size`` weights.

    Levels stand for 1, 3, 5, ..., or if not ``odd`` for ``lowest``, lowest + 1, ...
    """
    mask = I32(((1 << bits) - 1) << odd)

    @inlined
    def nearest(
        grid: Any, row: int, x: Any, w: Any, at: int, scale: Any, lowest: Any, careful: bool
    ) -> Any:
        """Return the code of the point nearest to the group at ``at``, the first of equals.

        -1 where an error is beyond float32, which it may be where that is to be looked for.
        """
        starts, codes = grid[1], grid[2]
        best, found = FLOAT_MAX, I32(-1)
        for slot in range(starts[row], starts[row + 1]):
            error, code = splat(ZERO, LANES), load(codes, slot * LANES, LANES)
            if odd:
                code = code << I32(1)
            for i in range(size):
                rung = (code >> I32(bits * i)) & mask
                q = to_float(rung | I32(1)) if odd else to_float(rung) + lowest
                off = scale * q - x[at + i]
                error = error + w[at + i] * off * off
            if careful and any_true(error != error):
                return I32(-1)
            low = smallest(error)
            if low < best:
                best, found = low, I32(codes[slot * LANES + first_true(error == low)])
        return found

    return nearest


@kernel
def take_signs(x: Any, w: Any, size: int, even: int, signs: Any) -> None:
    """Make the planes ``x`` positive, and put their signs into ``signs``, eight by eight.

    To make them ``even`` the sign of the weight that matters least is given up.
    """
    for k in range(size // 8):
        found, count = splat(I32(0), LANES), splat(I32(0), LANES)
        least_cost, which = splat(ZERO, LANES), splat(I32(0), LANES)
        for i in range(8):
            at = LANES * (8 * k + i)
            v = load(x, at, LANES)
            minus = v < ZERO
            found = found | where(minus, splat(I32(1 << i), LANES), I32(0))
            count = count ^ where(minus, splat(I32(1), LANES), I32(0))
            cost = load(w, at, LANES) * v * v
            less = cost < least_cost
            if i == 0:
                less = v == v
            least_cost = where(less, cost, least_cost)
            which = where(less, splat(I32(i), LANES), which)
            store(x, at, absolute(v))
        if even:
            for i in range(8):
                at = LANES * (8 * k + i)
                flip = (count == I32(1)) & (which == I32(i))
                v = load(x, at, LANES)
                store(x, at, where(flip, ZERO - v, v))
                found = found ^ where(flip, splat(I32(1 << i), LANES), I32(0))
            found = found & I32(127)
        store(signs, LANES * k, found)


@inlined
def turned(planes: Any, size: int, out: Any) -> None:
    """Put the planes of 16 sub-blocks into rows."""
    for i in range(0, size, 16):
        transpose(planes, LANES * i, LANES, out, i, size)


def make_search(lattice: Lattice, size: int) -> Any:
    """Make the search of sub-blocks of ``size``: see :class:`lfm2gguf.quants.lattice.Lattice`."""
    grid = lattice.grid
    group, bits, highest = grid.size, grid.bits, I32(grid.top)
    digits = I32(grid.top + 1)
    mask, groups = I32((1 << bits) - 1), size // group
    top, step, tries = F32(2 * grid.top + 1), F32(lattice.step), lattice.tries
    least_weight, even = F32(lattice.least), int(lattice.even)
    first_fit, fit_levels, fit_times = lattice.first_fit, grid.top + 2, F32(grid.top + 1)
    whole, always = lattice.after == "off, whole", lattice.after == "all"
    nearest = make_nearest(group, bits)

    @kernel
    def set_points(
        grid: Any, room: Any, inverse: Any, chosen: Any, careful: bool, off: Any, found: Any
    ) -> Any:
        """Find the points of all groups under the scales that begin ``room``.

        Only of lanes and groups that are ``chosen``. Returns whether there are any.
        """
        x, rows, roots = room[16:528], room[528:1040], room[1040:1552]
        index, codes = grid[0], grid[3]
        for k in range(groups):
            number = splat(I32(0), LANES)
            for i in range(group - 1, -1, -1):
                t = (load(x, LANES * (group * k + i), LANES) * inverse - ONE) * HALF
                number = number * digits + level(t, I32(0), highest)
            left_out = load(chosen, LANES * k, LANES) == I32(0)
            store(found, LANES * k, where(left_out, I32(-1), number))
        n = 0
        for at in range(LANES * groups):  # first all, without a branch: half of them are off
            number = found[at]
            point = I32(index[max(number, I32(0))])
            off[n] = at
            n += (number >= 0) & (point < 0)
            code = codes[max(point, I32(0))]
            found[at] = number if (number < 0) | (point < 0) else code
        for i in range(n):
            at = off[i]
            k, lane = at // LANES, at % LANES
            begin, row = size * lane + group * k, -1 - I32(index[found[at]])
            code = nearest(grid, row, rows, roots, begin, room[lane], ZERO, careful)
            if code < 0:
                return False
            found[at] = code | OFF_GRID
        return True

    @inlined
    def sums(room: Any, found: Any) -> Any:
        """Return the sums of w * x * q and of w * q * q."""
        x, w = room[16:528], room[1552:2064]
        sum_qx, sum_q2 = splat(ZERO, LANES), splat(ZERO, LANES)
        for k in range(groups):
            code = load(found, LANES * k, LANES)
            for i in range(group):
                at = LANES * (group * k + i)
                rung = (code >> I32(bits * i)) & mask
                q, weight = to_float(rung + rung + I32(1)), load(w, at, LANES)
                sum_qx = sum_qx + weight * load(x, at, LANES) * q
                sum_q2 = sum_q2 + weight * q * q
        return sum_qx, sum_q2

    @kernel
    def search(grid: Any, room: Any, ints: Any, scales: Any, signs: Any, points: Any) -> Any:
        """Fit the 16 sub-blocks whose planes ``room`` holds from 16 on, with weights from 1552 on.

        ``points`` get the codes. Returns False where weights are so large that ggml gives up.
        """
        x, w, fitted = room[16:528], room[1552:2064], room[2064:2576]
        found, chosen, off_grid = ints[:256], ints[256:512], ints[512:768]
        take_signs(x, w, size, even, signs)
        tame = splat(ZERO, LANES) == ZERO
        for i in range(size):
            tame = tame & (load(w, LANES * i, LANES) <= TAME)
            store(fitted, LANES * i, sqrt(load(w, LANES * i, LANES)))
        turned(x, size, room[528:1040])
        turned(fitted, size, room[1040:1552])
        peak = load(x, 0, LANES)
        for i in range(1, size):
            peak = most(peak, load(x, LANES * i, LANES))
        empty = peak < least_weight
        scale = peak / top
        if first_fit:
            positive_scale(x, w, size, fit_levels, fitted, scales)
            scale = load(scales, 0, LANES)
            peak = scale * fit_times
            empty = empty | (peak <= ZERO)
        everywhere = splat(ZERO, LANES) == ZERO
        careful, full = any_true((tame & (peak <= TAME)) ^ everywhere), empty ^ everywhere
        peak = where(empty, ONE, peak)
        if not first_fit:
            scale = peak / top
        best = splat(ZERO, LANES)
        for k in range(groups):
            store(points, LANES * k, splat(I32(OFF_GRID if whole else 0), LANES))
            store(chosen, LANES * k, splat(I32(1), LANES))
        for i in range(-tries, tries + 1):
            inverse = (top + F32(i) * step) / peak
            store(room, 0, ONE / inverse)
            if not set_points(grid, room, inverse, chosen, careful, off_grid, found):
                return False
            sum_qx, sum_q2 = sums(room, found)
            better = (sum_q2 > ZERO) & (sum_qx * sum_qx > best * sum_q2)
            tried = sum_qx / sum_q2
            scale, best = where(better, tried, scale), where(better, tried * sum_qx, best)
            for k in range(groups):
                new, old = load(found, LANES * k, LANES), load(points, LANES * k, LANES)
                store(points, LANES * k, where(better, new, old))
        # once more, under the scale that was found
        off = splat(I32(0), LANES)
        for k in range(groups):
            off = off | load(points, LANES * k, LANES)
        again = (scale > ZERO) & full
        if not always:
            again = again & ((off & I32(OFF_GRID)) != I32(0))
        if any_true(again):
            for k in range(groups):
                old = load(points, LANES * k, LANES)
                if not (always or whole):
                    again_here = again & ((old & I32(OFF_GRID)) != I32(0))
                else:
                    again_here = again
                store(chosen, LANES * k, where(again_here, splat(I32(1), LANES), I32(0)))
            store(room, 0, scale)
            if not set_points(grid, room, ONE / scale, chosen, careful, off_grid, found):
                return False
            for k in range(groups):
                new, old = load(found, LANES * k, LANES), load(points, LANES * k, LANES)
                store(points, LANES * k, where(new < I32(0), old, new))
            sum_qx, sum_q2 = sums(room, points)
            scale = where(again & (sum_q2 > ZERO), sum_qx / sum_q2, scale)
        minus = scale < ZERO
        if any_true((scale != scale) & full):
            return False
        scale = where(empty, ZERO, where(minus, ZERO - scale, scale))
        store(scales, 0, scale)
        store(room, 0, where(empty, ONE, splat(ZERO, LANES)))
        all_signs = I32(127 if even else 255)
        for k in range(size // 8):
            s = load(signs, LANES * k, LANES)
            s = where(minus, (s ^ I32(255)) & all_signs, s)
            store(signs, LANES * k, where(empty, I32(0), s))
        for k in range(groups):
            code = load(points, LANES * k, LANES) & I32(OFF_GRID - 1)
            store(points, LANES * k, where(empty, I32(0), code))
        return True

    return search
