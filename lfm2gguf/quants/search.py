"""The searches for a sub-block's scale: ``make_qkx[23]_quants`` and ``make_qx_quants``.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one sub-block per column. C adds
float32 strictly left to right; so does ``np.add.reduce(axis=0)`` over a C-contiguous array,
which adds row after row. All else is elementwise, in C's order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Floats, nearest_int

ZERO, ONE, TENTH = np.float32(0), np.float32(1), np.float32(0.1)
GROUP_MAX_EPS = np.float32(1e-15)
EXACT = 2.0**22  # up to here ggml's nearest_int is what its name says
FAR = 1024.0  # how many times its range at first a column's may become and be ordinary


def total(a: Floats) -> Floats:
    """Return the sum of each column, row after row, as C adds."""
    if a.shape[1] == 1:  # which reduce would add pairwise
        sums: Floats = np.add.accumulate(a, axis=0)[-1]
    else:
        sums = np.add.reduce(a, axis=0)
    return sums


def _extremes(x: Floats) -> tuple[Floats, Floats]:
    return np.minimum.reduce(x, axis=0), np.maximum.reduce(x, axis=0)


@lru_cache(maxsize=32)
def _row(n: int, value: int) -> Floats:
    """A number as a row: NumPy's minimum of an array and a plain number is not SIMD code."""
    return np.full(n, value, np.float32)


def round_levels(t: Floats, low: int, high: int, least: float, most: float) -> None:
    """Round to levels in place, as ``clamp(nearest_int(t), low, high)`` does.

    All of ``t`` lies in ``least`` to ``most``, but for rounding; NaN: it may be anything.
    """
    if not (least > -EXACT and most < EXACT):
        t[:] = np.clip(nearest_int(t), low, high)
        return
    if least < low - 0.49:
        np.maximum(t, _row(t.shape[1], low), out=t)
    if most > high + 0.49:
        np.minimum(t, _row(t.shape[1], high), out=t)
    np.rint(t, out=t)


@dataclass(frozen=True)
class Search:
    """What a type passes to ``make_qkx2_quants`` or ``make_qkx3_quants``.

    Levels are 0 to ``nmax``; ``nstep + 1`` scales are tried, from ``rmin`` in steps of
    ``rdelta`` around ``nmax`` levels to the range; errors are squared, or ``absolute``.
    """

    nmax: int
    rmin: float
    rdelta: float
    nstep: int
    absolute: bool = False


def scale_and_min(
    x: Floats,
    w: Floats,
    work: Sequence[Floats],
    search: Search,
    levels: Floats | None = None,
    careful: bool = False,
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Fit x = scale * level + low, errors weighed by ``w``, to the columns of ``x``.

    ``work`` is three arrays like ``x``; ``levels``, where given, is filled in. Returns scale,
    low, and which columns are ordinary. In the others (denormals, overflow, a fit gone
    astray) ``nearest_int`` may meet numbers that it was not made for; what C makes of them is
    imitated only where asked to be ``careful``. That takes twice as long.
    """
    assert x.flags.c_contiguous
    t, a, b = work
    nmax = search.nmax
    np.multiply(w, x, out=t)
    sum_w, sum_x = total(w), total(t)
    if (none := np.flatnonzero(sum_x == 0)).size:  # of which sign? C begins with the first
        sum_x[none[np.signbit(t[:, none]).all(axis=0)]] = -ZERO
    low, high = _extremes(x)
    zero = np.flatnonzero(low == 0)  # of which sign? C takes the first
    low[zero] = x[x[:, zero].argmin(axis=0), zero]
    np.putmask(low, low > 0, ZERO)
    span = high - low + ZERO  # never -0
    flat = span == 0

    # An ordinary column: abs(t) stays below FAR * (nmax + 1), far less than EXACT. One whose
    # span is 0 becomes NaN throughout, and so keeps C's result for it: scale 0 and its low.
    ordinary = (span > 1e-30) & (span < 1e30) | flat
    narrowest, widest = span / np.float32(FAR), span * np.float32(FAR)
    tried = np.empty_like(low if levels is None else x)

    def set_levels(factor: np.float32) -> None:
        np.subtract(x, low, out=t)
        np.multiply(t, factor / span, out=t)
        round_levels(t, 0, nmax, np.nan if careful else -FAR * nmax, float(factor))
        if levels is not None:
            tried[:] = t

    def error(scale: Floats, low: Floats) -> Floats:
        np.multiply(t, scale, out=t)
        np.add(t, low, out=t)
        np.subtract(t, x, out=t)
        if search.absolute:
            np.abs(t, out=t)
        else:
            np.multiply(t, t, out=t)
        np.multiply(t, w, out=t)
        return total(t)

    scale: Floats = ONE / (np.float32(nmax) / span)
    set_levels(np.float32(nmax))
    best = error(scale, low)
    if levels is not None:
        levels[:] = tried
    for step in range(search.nstep + 1):
        offset = np.float32(search.rmin) + np.float32(search.rdelta) * np.float32(step)
        set_levels(offset + np.float32(nmax))
        np.multiply(w, t, out=a)
        sum_l = total(a)
        np.multiply(a, x, out=b)
        sum_xl = total(b) + ZERO  # never -0: C adds to 0, though sum_x begins with the first
        np.multiply(a, t, out=a)
        sum_l2 = total(a)
        det = sum_w * sum_l2 - sum_l * sum_l
        this_scale = np.divide(sum_w * sum_xl - sum_x * sum_l, det)
        this_low = np.divide(sum_l2 * sum_x - sum_l * sum_xl, det)
        above = this_low > 0
        if above.any():
            this_low[above] = 0
            this_scale[above] = sum_xl[above] / sum_l2[above]
        this_error = error(this_scale, this_low)
        better = (this_error < best) & (det > 0)
        np.putmask(best, better, this_error)
        np.putmask(scale, better, this_scale)
        np.putmask(low, better, this_low)  # so the next step starts from another low
        np.subtract(high, low, out=span)
        ordinary &= (span >= narrowest) & (span <= widest)
        if levels is not None:
            np.copyto(levels, tried, where=better)
    if levels is not None:
        levels[:, flat] = 0
    return scale, low, ordinary


def furthest_from_zero(x: Floats) -> Floats:
    """Return the value furthest from zero in each column, with its sign; the first of equals."""
    low, high = _extremes(x)
    value: Floats = np.where(high > -low, high, low)
    tie = np.flatnonzero(high == -low)
    if len(tie):
        at = np.abs(x[:, tie]).argmax(axis=0)
        value[tie] = x[at, tie]
    return value


def symmetric_scale(
    x: Floats,
    w: Floats,
    work: Sequence[Floats],
    nmax: int,
    levels: Floats | None = None,
    careful: bool = False,
) -> Floats:
    """Fit x = scale * level, levels -nmax to nmax - 1, to the columns of ``x``.

    Squared errors are weighed by ``w``. ``work`` is three arrays like ``x``; ``levels``, where
    given, is filled in with the levels plus ``nmax``. Be ``careful`` where ``x`` may hold NaN
    or infinity.
    """
    assert x.flags.c_contiguous
    wx, t, a = work
    np.multiply(w, x, out=wx)
    peak = furthest_from_zero(np.where(np.isnan(x), ZERO, x) if careful else x)
    scale, best = np.zeros_like(peak), np.zeros_like(peak)
    for step in (0, *range(-9, 0), *range(1, 10)):
        factor = np.float32(nmax) + TENTH * np.float32(step)
        np.multiply(x, -factor / peak, out=t)
        round_levels(t, -nmax, nmax - 1, np.nan if careful else -float(factor), float(factor))
        tried = None if levels is None else t.copy()
        np.multiply(w, t, out=a)
        np.multiply(a, t, out=a)
        sum_l2 = total(a)
        np.multiply(wx, t, out=t)
        sum_lx = total(t)
        this_scale = sum_lx / sum_l2
        if step:
            better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        else:
            better = np.ones(peak.shape, np.bool_)
            this_scale[sum_l2 == 0] = 0
        np.putmask(scale, better, this_scale)
        np.putmask(best, better, this_scale * sum_lx)
        if levels is not None and tried is not None:
            np.copyto(levels, tried, where=better)
    zero = np.abs(peak) < GROUP_MAX_EPS
    scale[zero] = 0
    if levels is not None:
        levels += nmax
        levels[:, zero] = 0
    return scale
