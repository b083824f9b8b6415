"""The searches for a sub-block's scale, those of sixteen blocks side by side.

``make_qkx[23]_quants`` and ``make_qx_quants`` of ggml/src/ggml-quants.c, llama.cpp commit
0c1e57098. Where C would keep the levels of the best try, these keep what they were made with:
a level is needed rarely, and then made again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.across import any_true
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    HAS_ROUNDING,
    absolute,
    least,
    load,
    most,
    splat,
    sqrt,
    store,
    to_even,
    to_float,
    unknown,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    MAGIC,
    ONE,
    TENTH,
    ZERO,
    inlined,
    kernel,
    level,
)
from lfm2gguf.quants.search import GROUP_MAX_EPS

EPSILON = GROUP_MAX_EPS
SMALLEST, LARGEST = F32(1e-30), F32(1e30)
FAR = F32(1024)  # how many times its range at first an ordinary sub-block's may become
CLOSE = F32(0.499)  # what may be above a level and is rounded to it, whatever was rounded before
STEPS = np.array([0, 1, 5, 14, 19])  # where step 0, -9, -5 and 5 of a symmetric search stand
# What a search with minima keeps of each sub-block: ten vectors.
PLANES = 10
SUM_W, SUM_X, FIRST_LOW, HIGH, ERROR, ODD, SCALE, LOW, BOUND, FACTOR = range(0, 160, LANES)


@kernel
def weigh_by_size(planes: Any, at: int, w: Any) -> None:
    """Weights of 16 sub-blocks of 32: their root mean square plus abs(x)."""
    squares = splat(ZERO, LANES)
    for i in range(32):
        x = load(planes, at + LANES * i, LANES)
        squares = squares + x * x
    mean = sqrt(squares / F32(32))
    for i in range(32):
        store(w, LANES * i, mean + absolute(load(planes, at + LANES * i, LANES)))


@kernel
def total(w: Any, size: int, sums: Any, to: int) -> None:
    """Put the sum of each of 16 sub-blocks into ``sums``."""
    found = splat(ZERO, LANES)
    for i in range(size):
        found = found + load(w, LANES * i, LANES)
    store(sums, to, found)


@inlined
def rounded(x: Any, low: Any, high: Any, careful: bool, beneath: bool, beyond: bool) -> Any:
    """Return levels as float32, ``careful`` ones of any lanes.

    Or of such as may be beneath ``low``, or beyond ``high``, as it says, and whose magnitude is
    below 2**22. Zero may be -0 then, which no sum that begins with 0 shows.
    """
    if careful:
        return to_float(level(x, I32(low), I32(high)))
    rung = to_even(x) if HAS_ROUNDING else x + MAGIC - MAGIC
    if beyond:
        rung = least(rung, high)
    if beneath:
        rung = most(rung, low)
    return rung


@inlined
def begin(x: Any, at: int, w: Any, size: int, state: Any) -> Any:
    """Return where a sub-block begins; keep that, where it ends, and its sums."""
    low = load(x, at, LANES)
    high = low
    sum_w = load(w, 0, LANES)
    sum_x = sum_w * low
    for i in range(1, size):
        v, weight = load(x, at + LANES * i, LANES), load(w, LANES * i, LANES)
        low, high = least(v, low), most(v, high)
        sum_w = sum_w + weight
        sum_x = sum_x + weight * v
    low = where(low > ZERO, ZERO, low)
    span = high - low
    ordinary = ((span > SMALLEST) & (span < LARGEST)) | (low == high)
    store(state, SUM_W, sum_w)
    store(state, SUM_X, sum_x)
    store(state, FIRST_LOW, low)
    store(state, HIGH, high)
    store(state, ODD, where(ordinary, ZERO, splat(ONE, LANES)))
    return low


@inlined
def fit(
    x: Any, at: int, w: Any, rungs: Any, size: int, nmax: Any, careful: bool, beyond: bool,
    low: Any, factor: Any, state: Any,
) -> None:  # fmt: skip
    """Make the levels of a factor, and the scale and low that fit them best."""
    sum_l, sum_l2, sum_xl = splat(ZERO, LANES), splat(ZERO, LANES), splat(ZERO, LANES)
    for i in range(size):
        v = load(x, at + LANES * i, LANES)
        rung = rounded(factor * (v - low), ZERO, nmax, careful, True, beyond)
        store(rungs, LANES * i, rung)
        weighted = load(w, LANES * i, LANES) * rung
        sum_l = sum_l + weighted
        sum_l2 = sum_l2 + weighted * rung
        sum_xl = sum_xl + weighted * v
    sum_w, sum_x = load(state, SUM_W, LANES), load(state, SUM_X, LANES)
    det = sum_w * sum_l2 - sum_l * sum_l
    this_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
    above = this_low > ZERO
    this_scale = where(above, sum_xl / sum_l2, (sum_w * sum_xl - sum_x * sum_l) / det)
    store(state, FACTOR, factor)
    store(state, SCALE, this_scale)
    store(state, LOW, where(above, ZERO, this_low))
    store(state, BOUND, where(det > ZERO, load(state, ERROR, LANES), ZERO))


@inlined
def error_of(x: Any, at: int, w: Any, rungs: Any, size: int, by_distance: bool, state: Any) -> Any:
    """Return the error of the fit."""
    scale, low = load(state, SCALE, LANES), load(state, LOW, LANES)
    error = splat(ZERO, LANES)
    for i in range(size):
        off = scale * load(rungs, LANES * i, LANES) + low - load(x, at + LANES * i, LANES)
        cost = absolute(off) if by_distance else off * off
        error = error + load(w, LANES * i, LANES) * cost
    return error


@inlined
def choose(better: Any, error: Any, state: Any, found: Any, p: int) -> None:
    """Keep the fit where it is better, and whether a range stays an ordinary one."""
    scales, lows, factors, starts = found
    low, high = load(lows, p, LANES), load(state, HIGH, LANES)
    store(state, ERROR, where(better, error, load(state, ERROR, LANES)))
    store(factors, p, where(better, load(state, FACTOR, LANES), load(factors, p, LANES)))
    store(scales, p, where(better, load(state, SCALE, LANES), load(scales, p, LANES)))
    store(starts, p, where(better, low, load(starts, p, LANES)))
    low = where(better, load(state, LOW, LANES), low)
    store(lows, p, low)  # the next step starts from there
    first = load(state, FIRST_LOW, LANES)
    span, at_first = high - low, high - first
    ordinary = (first == high) | ((span >= at_first / FAR) & (span <= at_first * FAR))
    store(state, ODD, where(ordinary, load(state, ODD, LANES), ONE))


@kernel
def search_with_or_without_care(
    x: Any, at: int, w: Any, work: Any, size: int, count: int, by_distance: bool, nmax: Any,
    rmin: Any, rdelta: Any, nstep: int, found: Any, to: int, careful: bool,
) -> Any:  # fmt: skip
    """Search as :func:`search_with_min` says; return whether all needed no care.

    A step of one sub-block waits for divisions, so that those of several are taken by turns.
    """
    size = unknown(size)
    length = LANES * size
    scales, lows, factors, starts = found
    for k in range(count):
        state = work[PLANES * LANES * k :]
        store(lows, to + LANES * k, begin(x, at + length * k, w[length * k :], size, state))
    for step in range(-1, nstep + 1):
        reach = nmax if step < 0 else rmin + rdelta * F32(step) + nmax
        beyond = reach > nmax + CLOSE
        for k in range(count):
            state, rungs = work[PLANES * LANES * k :], work[PLANES * LANES * count + length * k :]
            low = load(lows, to + LANES * k, LANES)
            factor = reach / (load(state, HIGH, LANES) - low)
            fit(
                x, at + length * k, w[length * k :], rungs, size, nmax, careful, beyond, low,
                factor, state,
            )  # fmt: skip
            if step < 0:
                store(state, SCALE, ONE / factor)
                store(state, LOW, low)
        for k in range(count):
            state, rungs = work[PLANES * LANES * k :], work[PLANES * LANES * count + length * k :]
            weights = w[length * k :]
            error = error_of(x, at + length * k, weights, rungs, size, by_distance, state)
            better = error < load(state, BOUND, LANES)
            if step < 0:  # there is none before it
                better = better | (splat(ZERO, LANES) == ZERO)
            choose(better, error, state, found, to + LANES * k)
    odd = splat(ZERO, LANES)
    for k in range(count):
        state, p = work[PLANES * LANES * k :], to + LANES * k
        first = load(state, FIRST_LOW, LANES)
        is_flat = first == load(state, HIGH, LANES)
        store(scales, p, where(is_flat, ZERO, load(scales, p, LANES)))
        store(lows, p, where(is_flat, first, load(lows, p, LANES)))
        store(factors, p, where(is_flat, ZERO, load(factors, p, LANES)))  # level 0 throughout
        store(starts, p, where(is_flat, ZERO, load(starts, p, LANES)))
        odd = most(odd, load(state, ODD, LANES))
    return not any_true(odd > ZERO)


@kernel
def search_with_min(
    x: Any, at: int, w: Any, work: Any, size: int, count: int, by_distance: bool, nmax: Any,
    rmin: Any, rdelta: Any, nstep: int, found: Any, to: int,
) -> None:  # fmt: skip
    """Fit x = scale * level + low, levels 0 to ``nmax``, to ``count`` times 16 sub-blocks.

    They stand at ``at`` one after another, and their weights in ``w``; ``work`` is room for
    ``count * (size + 10)`` vectors. ``by_distance``: errors count by their size, not by their
    square (C's ``use_mad``). The four arrays ``found`` get scales, lows, factors and starts from
    ``to`` on; the levels are those of ``factor * (x - start)``.
    """
    if not search_with_or_without_care(
        x, at, w, work, size, count, by_distance, nmax, rmin, rdelta, nstep, found, to, False
    ):
        search_with_or_without_care(
            x, at, w, work, size, count, by_distance, nmax, rmin, rdelta, nstep, found, to, True
        )


@kernel
def weigh_by_square(planes: Any, at: int, size: int, w: Any) -> None:
    """Weights of 16 sub-blocks: the squares of what they hold."""
    for i in range(size):
        x = load(planes, at + LANES * i, LANES)
        store(w, LANES * i, x * x)


@kernel
def try_factors(
    x: Any, at: int, w: Any, wx: Any, size: int, nmax: Any, tried: Any, first: int, end: int,
    careful: bool, beneath: bool, beyond: bool, found: Any,
) -> Any:  # fmt: skip
    """Return a scale, what is gained by it and its factor: ``found`` or, if better, another."""
    scale, best, best_factor = found
    low, high = ZERO - nmax, nmax - ONE
    for k in range(first, end):
        factor = load(tried, LANES * k, LANES)
        sum_xl, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
        for i in range(size):
            v = load(x, at + LANES * i, LANES)
            rung = rounded(factor * v, low, high, careful, beneath, beyond)
            sum_xl = sum_xl + load(wx, LANES * i, LANES) * rung
            sum_l2 = sum_l2 + load(w, LANES * i, LANES) * rung * rung
        better = (sum_l2 > ZERO) & (sum_xl * sum_xl > best * sum_l2)
        if k == 0:
            better = sum_l2 != ZERO
        this_scale = sum_xl / sum_l2
        scale = where(better, this_scale, scale)
        best = where(better, this_scale * sum_xl, best)
        best_factor = where(better, factor, best_factor)
    return scale, best, best_factor


@kernel
def symmetric_search(
    x: Any, at: int, w: Any, work: Any, size: int, nmax: Any, scales: Any, factors: Any,
    flat: Any, to: int, careful: bool,
) -> None:  # fmt: skip
    """Fit x = scale * level, levels -nmax to nmax - 1, to the sub-blocks at ``at``.

    The results stand from ``to`` on; the levels are those of ``factor * x``, or where ``flat``
    is 1 the lowest. ``work`` is room for ``size`` + 19 vectors. ``careful``: of NaN and infinity,
    too. Of others a level before rounding is as far from zero as ``nmax`` and a tenth of the
    step at most: none is beneath the lowest in the steps up to 4, or beyond the highest up to -6.
    """
    size = unknown(size)
    wx, tried = work, work[LANES * size :]
    peak, far = splat(ZERO, LANES), splat(ZERO, LANES)
    for i in range(size):
        v = load(x, at + LANES * i, LANES)
        store(wx, LANES * i, load(w, LANES * i, LANES) * v)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    for k in range(19):  # 0, -9 to -1, 1 to 9
        step = k - 9 if k > 9 else k - 10 if k else 0
        store(tried, LANES * k, (ZERO - (nmax + TENTH * F32(step))) / peak)
    none = splat(ZERO, LANES)
    found = none, none, load(tried, 0, LANES)
    for part in range(4):
        first, end = STEPS[part], STEPS[part + 1]
        found = try_factors(
            x, at, w, wx, size, nmax, tried, first, end, careful, part == 3, part != 1, found
        )
    zero = far < EPSILON
    store(scales, to, where(zero, ZERO, found[0]))
    store(factors, to, found[2])
    store(flat, to, where(zero, ONE, none))
