"""The searches for a sub-block's scale, sixteen sub-blocks side by side.

``make_qkx2_quants`` and ``make_qx_quants`` of ggml/src/ggml-quants.c, llama.cpp commit
0c1e57098. A lane is a sub-block, so that its sums run over its weights one after another, in
C's order. All arrays are planes: number ``i`` of sub-block ``k`` stands at ``16 * i + k``.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    least,
    load,
    most,
    splat,
    sqrt,
    store,
    to_float,
    transpose,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    TENTH,
    ZERO,
    inlined,
    kernel,
    level,
    quick_level,
)

LANES = 16
EPSILON = F32(1e-15)  # GROUP_MAX_EPS
SMALLEST, LARGEST = F32(1e-30), F32(1e30)
FAR = F32(1024)  # how many times its range at first an ordinary sub-block's may become


@kernel
def columns(x: Any, size: int, planes: Any) -> None:
    """Put 16 sub-blocks of ``size`` (16 or 32) weights into the first plane."""
    for i in range(0, size, 16):
        transpose(x, i, size, planes, LANES * i, LANES)


@inlined
def careful_level(x: Any, low: Any, high: Any) -> Any:
    """Return the level of any lanes as float32."""
    return to_float(level(x, I32(low), I32(high)))


@kernel
def weigh_by_size(planes: Any, weights: Any) -> None:
    """Weights of 16 sub-blocks of 32: their root mean square plus abs(x)."""
    squares = splat(ZERO, LANES)
    for i in range(32):
        x = load(planes, LANES * i, LANES)
        squares = squares + x * x
    mean = sqrt(squares / F32(32))
    for i in range(32):
        store(weights, LANES * i, mean + absolute(load(planes, LANES * i, LANES)))


@kernel
def total(planes: Any, size: int, sums: Any) -> None:
    """Put the sum of each of 16 sub-blocks into ``sums``."""
    found = splat(ZERO, LANES)
    for i in range(size):
        found = found + load(planes, LANES * i, LANES)
    store(sums, 0, found)


def _make_search_with_min(careful: bool, by_distance: bool) -> Any:
    """The search; a careful one also keeps the levels found, and takes numbers of any size.

    ``by_distance``: errors count by their size, not by their square (C's ``use_mad``).
    """
    rounded = careful_level if careful else quick_level

    @kernel
    def search(
        x: Any, w: Any, levels: Any, kept: Any, size: int, nmax: Any, rmin: Any, rdelta: Any,
        nstep: int, scales: Any, minima: Any, flat: Any,
    ) -> Any:  # fmt: skip
        low = load(x, 0, LANES)
        high = low
        sum_w = load(w, 0, LANES)
        sum_x = sum_w * low
        for i in range(1, size):
            v, weight = load(x, LANES * i, LANES), load(w, LANES * i, LANES)
            low, high = least(v, low), most(v, high)
            sum_w = sum_w + weight
            sum_x = sum_x + weight * v
        low = where(low > ZERO, ZERO, low)
        span = high - low
        is_flat, flat_low = low == high, low
        ordinary = ((span > SMALLEST) & (span < LARGEST)) | is_flat
        narrowest, widest = span / FAR, span * FAR
        factor = nmax / span
        scale = ONE / factor
        best = splat(ZERO, LANES)
        for i in range(size):
            v = load(x, LANES * i, LANES)
            rung = rounded(factor * (v - low), ZERO, nmax)
            if careful:
                store(kept, LANES * i, rung)
            off = scale * rung + low - v
            cost = absolute(off) if by_distance else off * off
            best = best + load(w, LANES * i, LANES) * cost
        for step in range(nstep + 1):
            factor = (rmin + rdelta * F32(step) + nmax) / span
            sum_l, sum_l2, sum_xl = splat(ZERO, LANES), splat(ZERO, LANES), splat(ZERO, LANES)
            for i in range(size):
                v = load(x, LANES * i, LANES)
                rung = rounded(factor * (v - low), ZERO, nmax)
                store(levels, LANES * i, rung)
                weighted = load(w, LANES * i, LANES) * rung
                sum_l = sum_l + weighted
                sum_l2 = sum_l2 + weighted * rung
                sum_xl = sum_xl + weighted * v
            det = sum_w * sum_l2 - sum_l * sum_l
            this_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
            above = this_low > ZERO
            this_scale = where(above, sum_xl / sum_l2, (sum_w * sum_xl - sum_x * sum_l) / det)
            this_low = where(above, ZERO, this_low)
            error = splat(ZERO, LANES)
            for i in range(size):
                off = this_scale * load(levels, LANES * i, LANES) + this_low
                off = off - load(x, LANES * i, LANES)
                cost = absolute(off) if by_distance else off * off
                error = error + load(w, LANES * i, LANES) * cost
            better = (det > ZERO) & (error < best)
            best = where(better, error, best)
            scale = where(better, this_scale, scale)
            low = where(better, this_low, low)  # so the next step starts from another low
            span = high - low
            ordinary = ordinary & (is_flat | ((span >= narrowest) & (span <= widest)))
            if careful:
                for i in range(size):
                    found, before = load(levels, LANES * i, LANES), load(kept, LANES * i, LANES)
                    store(kept, LANES * i, where(better, found, before))
        store(scales, 0, where(is_flat, ZERO, scale))
        store(minima, 0, ZERO - where(is_flat, flat_low, low))
        store(flat, 0, where(is_flat, ONE, splat(ZERO, LANES)))
        if careful:
            for i in range(size):
                store(kept, LANES * i, where(is_flat, ZERO, load(kept, LANES * i, LANES)))
        return not any_true(where(ordinary, ZERO, splat(ONE, LANES)) > ZERO)

    return search


def _make_two_step_search(by_distance: bool) -> tuple[Any, Any]:
    """The search as it is used, and its careful half."""
    quick = _make_search_with_min(False, by_distance)
    careful = _make_search_with_min(True, by_distance)

    @kernel
    def search(
        x: Any, w: Any, work: Any, kept: Any, size: int, nmax: Any, rmin: Any, rdelta: Any,
        nstep: int, scales: Any, minima: Any, flat: Any,
    ) -> Any:  # fmt: skip
        """Fit x = scale * level - min, levels 0 to ``nmax``; return whether ``kept`` has levels.

        That is where a number is out of the ordinary. ``flat`` becomes 1 where all levels are 0.
        """
        if quick(x, w, work, kept, size, nmax, rmin, rdelta, nstep, scales, minima, flat):
            return False
        careful(x, w, work, kept, size, nmax, rmin, rdelta, nstep, scales, minima, flat)
        return True

    return search, careful


search_with_min, careful_search_with_min = _make_two_step_search(by_distance=False)
search_by_distance, careful_search_by_distance = _make_two_step_search(by_distance=True)


@kernel
def weigh_by_square(planes: Any, size: int, weights: Any) -> None:
    """Weights of 16 sub-blocks: the squares of what they hold."""
    for i in range(size):
        x = load(planes, LANES * i, LANES)
        store(weights, LANES * i, x * x)


def _make_symmetric_search(keep: bool) -> Any:
    """The search; ``keep``: also the levels that were found, plus ``nmax``.

    A level before rounding is at most about ``nmax`` + 1, so that the quick rounding is exact.
    """

    @kernel
    def search(
        x: Any, w: Any, wx: Any, kept: Any, size: int, nmax: Any, reach: int, scales: Any,
        flat: Any,
    ) -> None:  # fmt: skip
        low, high = ZERO - nmax, nmax - ONE
        peak, far = splat(ZERO, LANES), splat(ZERO, LANES)
        for i in range(size):
            v = load(x, LANES * i, LANES)
            store(wx, LANES * i, load(w, LANES * i, LANES) * v)
            distance = absolute(v)
            further = distance > far
            far, peak = where(further, distance, far), where(further, v, peak)
        scale, best = splat(ZERO, LANES), splat(ZERO, LANES)
        for k in range(2 * reach + 1):  # 0, -reach to -1, 1 to reach
            step = k - reach if k > reach else k - reach - 1 if k else 0
            factor = (ZERO - (nmax + TENTH * F32(step))) / peak
            sum_xl, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
            for i in range(size):
                rung = quick_level(factor * load(x, LANES * i, LANES), low, high)
                sum_xl = sum_xl + load(wx, LANES * i, LANES) * rung
                sum_l2 = sum_l2 + load(w, LANES * i, LANES) * rung * rung
            found = where(sum_l2 == ZERO, ZERO, sum_xl / sum_l2)
            better = (sum_l2 > ZERO) & (sum_xl * sum_xl > best * sum_l2)
            if k == 0:
                better = far == far
            scale = where(better, found, scale)
            best = where(better, found * sum_xl, best)
            if keep:
                for i in range(size):
                    rung = quick_level(factor * load(x, LANES * i, LANES), low, high)
                    store(kept, LANES * i, where(better, rung, load(kept, LANES * i, LANES)))
        zero = far < EPSILON
        store(scales, 0, where(zero, ZERO, scale))
        store(flat, 0, where(zero, ONE, splat(ZERO, LANES)))
        if keep:
            for i in range(size):
                rung = load(kept, LANES * i, LANES) + nmax
                store(kept, LANES * i, where(zero, ZERO, rung))

    return search


symmetric_search = _make_symmetric_search(False)
symmetric_levels = _make_symmetric_search(True)
