"""The searches for a sub-block's scale, those of sixteen blocks side by side.

``make_qkx[23]_quants`` and ``make_qx_quants`` of ggml/src/ggml-quants.c, llama.cpp commit
0c1e57098. Where C would keep the levels of the best try, these keep what they were made with:
a level is needed rarely, and then made again.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    bits,
    from_bits,
    least,
    load,
    most,
    splat,
    sqrt,
    store,
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
    bits_of,
    inlined,
    kernel,
    level,
    quick_level,
)
from lfm2gguf.quants.search import GROUP_MAX_EPS

EPSILON = GROUP_MAX_EPS
SMALLEST, LARGEST = F32(1e-30), F32(1e30)
FAR = F32(1024)  # how many times its range at first an ordinary sub-block's may become


@inlined
def careful_level(x: Any, low: Any, high: Any) -> Any:
    """Return the level of any lanes as float32."""
    return to_float(level(x, I32(low), I32(high)))


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


def _make_search_with_min(careful: bool, by_distance: bool) -> Any:
    """The search; a careful one takes numbers of any size.

    ``by_distance``: errors count by their size, not by their square (C's ``use_mad``).
    """
    rounded = careful_level if careful else quick_level

    @kernel
    def search(
        x: Any, at: int, w: Any, work: Any, size: int, nmax: Any, rmin: Any, rdelta: Any,
        nstep: int, scales: Any, lows: Any, factors: Any, starts: Any, to: int,
    ) -> Any:  # fmt: skip
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
        is_flat, flat_low = low == high, low
        ordinary = ((span > SMALLEST) & (span < LARGEST)) | is_flat
        narrowest, widest = span / FAR, span * FAR
        factor = nmax / span
        best_factor, best_start = factor, low
        scale = ONE / factor
        best = splat(ZERO, LANES)
        for i in range(size):
            v = load(x, at + LANES * i, LANES)
            rung = rounded(factor * (v - low), ZERO, nmax)
            off = scale * rung + low - v
            cost = absolute(off) if by_distance else off * off
            best = best + load(w, LANES * i, LANES) * cost
        for step in range(nstep + 1):
            factor = (rmin + rdelta * F32(step) + nmax) / span
            sum_l, sum_l2, sum_xl = splat(ZERO, LANES), splat(ZERO, LANES), splat(ZERO, LANES)
            for i in range(size):
                v = load(x, at + LANES * i, LANES)
                rung = rounded(factor * (v - low), ZERO, nmax)
                store(work, LANES * i, rung)
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
                off = this_scale * load(work, LANES * i, LANES) + this_low
                off = off - load(x, at + LANES * i, LANES)
                cost = absolute(off) if by_distance else off * off
                error = error + load(w, LANES * i, LANES) * cost
            better = (det > ZERO) & (error < best)
            best = where(better, error, best)
            best_factor = where(better, factor, best_factor)
            best_start = where(better, low, best_start)
            scale = where(better, this_scale, scale)
            low = where(better, this_low, low)  # so the next step starts from another low
            span = high - low
            ordinary = ordinary & (is_flat | ((span >= narrowest) & (span <= widest)))
        store(scales, to, where(is_flat, ZERO, scale))
        store(lows, to, where(is_flat, flat_low, low))
        store(factors, to, where(is_flat, ZERO, best_factor))  # level 0 throughout
        store(starts, to, where(is_flat, ZERO, best_start))
        return not any_true(where(ordinary, ZERO, splat(ONE, LANES)) > ZERO)

    return search


def _make_two_step_search(by_distance: bool) -> Any:
    quick = _make_search_with_min(False, by_distance)
    careful = _make_search_with_min(True, by_distance)

    @kernel
    def search(
        x: Any, at: int, w: Any, work: Any, size: int, nmax: Any, rmin: Any, rdelta: Any,
        nstep: int, scales: Any, lows: Any, factors: Any, starts: Any, to: int,
    ) -> None:  # fmt: skip
        """Fit x = scale * level + low, levels 0 to ``nmax``, to the sub-blocks at ``at``.

        The results stand from ``to`` on; the levels are those of ``factor * (x - start)``.
        """
        if not quick(
            x, at, w, work, size, nmax, rmin, rdelta, nstep, scales, lows, factors, starts, to
        ):
            careful(
                x, at, w, work, size, nmax, rmin, rdelta, nstep, scales, lows, factors, starts, to
            )

    return search


search_with_min = _make_two_step_search(by_distance=False)
search_by_distance = _make_two_step_search(by_distance=True)


@kernel
def weigh_by_square(planes: Any, at: int, size: int, w: Any) -> None:
    """Weights of 16 sub-blocks: the squares of what they hold."""
    for i in range(size):
        x = load(planes, at + LANES * i, LANES)
        store(w, LANES * i, x * x)


@inlined
def level_below(x: Any, _: Any, high: Any) -> Any:
    """Return what :func:`quick_level` does, of lanes that are not below the lowest level."""
    return from_bits(least(bits(x + MAGIC), bits_of(high))) - MAGIC


@inlined
def level_between(x: Any, _: Any, __: Any) -> Any:
    """Return the same of lanes that are between the lowest level and the highest."""
    return (x + MAGIC) - MAGIC


def _make_tries(rounded: Any) -> Any:
    """A part of :func:`_make_symmetric_search`, with its way of rounding."""

    @kernel
    def tries(
        x: Any, at: int, w: Any, wx: Any, size: int, nmax: Any, tried: Any, first: int, end: int,
        found: Any,
    ) -> Any:  # fmt: skip
        """Return a scale, what is gained by it and its factor: ``found`` or, if better, another."""
        scale, best, best_factor = found
        for k in range(first, end):
            factor = load(tried, LANES * k, LANES)
            sum_xl, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
            for i in range(size):
                rung = rounded(factor * load(x, at + LANES * i, LANES), ZERO - nmax, nmax - ONE)
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

    return tries


def _make_symmetric_search(careful: bool) -> Any:
    """The search; a careful one takes NaN and infinity.

    A level before rounding is as far from zero as ``nmax`` and a tenth of the step at most. So the
    quick rounding is exact, none is too low in the steps up to 4, and none too high up to -6.
    """
    most_tries = _make_tries(careful_level if careful else level_below)
    first_tries = most_tries if careful else _make_tries(level_between)
    last_tries = most_tries if careful else _make_tries(quick_level)

    @kernel
    def search(
        x: Any, at: int, w: Any, work: Any, size: int, nmax: Any, scales: Any, factors: Any,
        flat: Any, to: int,
    ) -> None:  # fmt: skip
        """Fit x = scale * level, levels -nmax to nmax - 1, to the sub-blocks at ``at``.

        The results stand from ``to`` on; the levels are those of ``factor * x``, or where
        ``flat`` is 1 the lowest. ``work`` is room for ``size`` + 19 vectors.
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
        found = most_tries(x, at, w, wx, size, nmax, tried, 0, 1, found)
        found = first_tries(x, at, w, wx, size, nmax, tried, 1, 5, found)  # step -9 to -6
        found = most_tries(x, at, w, wx, size, nmax, tried, 5, 14, found)
        found = last_tries(x, at, w, wx, size, nmax, tried, 14, 19, found)  # step 5 to 9
        zero = far < EPSILON
        store(scales, to, where(zero, ZERO, found[0]))
        store(factors, to, found[2])
        store(flat, to, where(zero, ONE, none))

    return search


symmetric_search = _make_symmetric_search(careful=False)
careful_symmetric_search = _make_symmetric_search(careful=True)
