"""The searches for a sub-block's scale: ``make_qkx2_quants`` and ``make_qx_quants``.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one sub-block per column. C adds
float32 strictly left to right; so does ``np.add.reduce(axis=0)`` over a C-contiguous array,
which adds row after row. All else is elementwise, in C's order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Floats, nearest_int

ZERO, ONE, TENTH = np.float32(0), np.float32(1), np.float32(0.1)
GROUP_MAX_EPS = np.float32(1e-15)
EXACT = 2.0**22  # up to here ggml's nearest_int is what its name says
FAR = 1024.0  # how many times its range at first a column's may become and be ordinary


def _sum(a: Floats) -> Floats:
    """The sum of each column, row after row, as C adds."""
    total: Floats = np.add.reduce(a, axis=0)
    return total


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


def scale_and_min(
    x: Floats,
    work: Sequence[Floats],
    nmax: int,
    rmin: float,
    nstep: int,
    levels: Floats | None = None,
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Fit x = scale * level - min, levels 0 to ``nmax``, to the columns of ``x`` (32, n).

    ``work`` is four arrays like ``x``. Returns scale, min, and which columns are ordinary.
    In the others (denormals, overflow, a fit gone astray) ``nearest_int`` may meet numbers
    that it was not made for; what C makes of them is imitated only where ``levels``, an array
    like ``x``, is given and filled in. That takes twice as long.
    """
    assert x.flags.c_contiguous
    assert x.shape[1] > 1, "NumPy would add a single column pairwise"
    w, t, a, b = work
    np.multiply(x, x, out=t)
    np.abs(x, out=w)
    w += np.sqrt(_sum(t) / np.float32(32))
    np.multiply(w, x, out=t)
    sum_w, sum_x = _sum(w), _sum(t)
    low, high = _extremes(x)
    low = np.minimum(low, ZERO, out=low)
    span = high - low

    # An ordinary column: abs(t) stays below FAR * (nmax + 1), far less than EXACT. One whose
    # span is 0 becomes NaN throughout, and so keeps C's result for it: scale 0, min -low.
    ordinary = (span > 1e-30) & (span < 1e30) | (span == 0)
    narrowest, widest = span / np.float32(FAR), span * np.float32(FAR)
    tried = np.empty_like(low if levels is None else x)

    def set_levels(factor: np.float32) -> None:
        np.subtract(x, low, out=t)
        np.multiply(t, factor / span, out=t)
        round_levels(t, 0, nmax, np.nan if levels is not None else -FAR * nmax, float(factor))
        if levels is not None:
            tried[:] = t

    def squared_error(scale: Floats, low: Floats) -> Floats:
        np.multiply(t, scale, out=t)
        np.add(t, low, out=t)
        np.subtract(t, x, out=t)
        np.multiply(t, t, out=t)
        np.multiply(t, w, out=t)
        return _sum(t)

    scale: Floats = ONE / (np.float32(nmax) / span)
    set_levels(np.float32(nmax))
    best = squared_error(scale, low)
    if levels is not None:
        levels[:] = tried
    for step in range(nstep + 1):
        set_levels(np.float32(rmin) + TENTH * np.float32(step) + np.float32(nmax))
        np.multiply(w, t, out=a)
        sum_l = _sum(a)
        np.multiply(a, x, out=b)
        sum_xl = _sum(b)
        np.multiply(a, t, out=a)
        sum_l2 = _sum(a)
        det = sum_w * sum_l2 - sum_l * sum_l
        this_scale = np.divide(sum_w * sum_xl - sum_x * sum_l, det)
        this_low = np.divide(sum_l2 * sum_x - sum_l * sum_xl, det)
        above = this_low > 0
        if above.any():
            this_low[above] = 0
            this_scale[above] = sum_xl[above] / sum_l2[above]
        error = squared_error(this_scale, this_low)
        better = (error < best) & (det > 0)
        np.putmask(best, better, error)
        np.putmask(scale, better, this_scale)
        np.putmask(low, better, this_low)  # so the next step starts from another low
        np.subtract(high, low, out=span)
        ordinary &= (span >= narrowest) & (span <= widest)
        if levels is not None:
            np.copyto(levels, tried, where=better)
    return scale, ZERO - low, ordinary


def furthest_from_zero(x: Floats) -> Floats:
    """The value furthest from zero in each column, with its sign; the first of equals."""
    low, high = _extremes(x)
    value: Floats = np.where(high > -low, high, low)
    tie = np.flatnonzero(high == -low)
    if len(tie):
        at = np.abs(x[:, tie]).argmax(axis=0)
        value[tie] = x[at, tie]
    return value


def symmetric_scale(
    x: Floats, work: Sequence[Floats], nmax: int, levels: Floats | None = None
) -> Floats:
    """Fit x = scale * level, levels -nmax to nmax - 1, to the columns of ``x`` (16, n).

    The weights are x². ``work`` is four arrays like ``x``; ``levels``, where given, is filled
    in with the levels plus ``nmax``.
    """
    assert x.flags.c_contiguous
    assert x.shape[1] > 1, "NumPy would add a single column pairwise"
    w, wx, t, a = work
    np.multiply(x, x, out=w)
    np.multiply(w, x, out=wx)
    peak = furthest_from_zero(x)
    scale, best = np.zeros_like(peak), np.zeros_like(peak)
    for step in (0, *range(-9, 0), *range(1, 10)):
        factor = np.float32(nmax) + TENTH * np.float32(step)
        np.multiply(x, -factor / peak, out=t)
        round_levels(t, -nmax, nmax - 1, -float(factor), float(factor))
        tried = None if levels is None else t.copy()
        np.multiply(w, t, out=a)
        np.multiply(a, t, out=a)
        sum_l2 = _sum(a)
        np.multiply(wx, t, out=t)
        sum_lx = _sum(t)
        # sum_l2 > 0, which C asks for too, holds where the peak is not next to nothing
        better = sum_lx * sum_lx > best * sum_l2 if step else np.ones(peak.shape, np.bool_)
        this_scale = sum_lx / sum_l2
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
