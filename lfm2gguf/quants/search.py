"""The searches for a sub-block's scale: ``make_qkx2_quants`` and ``make_qx_quants``.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one sub-block per column. C adds
float32 strictly left to right; so does ``np.add.reduce(axis=0)`` over a C-contiguous array,
which adds row after row. All else is elementwise, in C's order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Floats, nearest_int

ZERO = np.float32(0)
TENTH = np.float32(0.1)
GROUP_MAX_EPS = np.float32(1e-15)
FAR = np.float32(1024)  # times its first span: how far a column may stray and be ordinary
EXACT = 2.0**22  # where ggml's nearest_int ends to be one

add, minimum, maximum = np.add.reduce, np.minimum.reduce, np.maximum.reduce


def round_levels(t: Floats, low: int, high: int, least: float, most: float) -> None:
    """Round to levels in place, as ``clamp(nearest_int(t), low, high)`` does.

    All of ``t`` lies in ``least`` to ``most``; NaN says that it may be anything.
    """
    if not (least > -EXACT and most < EXACT):
        t[:] = np.clip(nearest_int(t), low, high)
        return
    # operands as long as a row: NumPy's minimum of an array and a number is not SIMD code
    if least < low - 0.49:
        np.maximum(t, np.full(t.shape[1], low, np.float32), out=t)
    if most > high + 0.49:
        np.minimum(t, np.full(t.shape[1], high, np.float32), out=t)
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

    ``work`` is four arrays like ``x``. Returns scale, min, and which columns stayed within
    ordinary magnitudes. Outside, ``nearest_int`` meets numbers that it was not made for; what
    it makes of them is imitated only where ``levels`` (like ``x``) is given, and filled in.
    """
    assert x.flags.c_contiguous
    assert x.shape[1] > 1, "NumPy would add a single column pairwise"
    w, t, a, b = work
    np.multiply(x, x, out=t)
    np.abs(x, out=w)
    w += np.sqrt(add(t, axis=0) / np.float32(32))
    np.multiply(w, x, out=t)
    sum_w, sum_x = add(w, axis=0), add(t, axis=0)

    high = maximum(x, axis=0)
    low = np.minimum(minimum(x, axis=0), ZERO)
    span = high - low
    ordinary = (span > 1e-30) & (span < 1e30) | (span == 0)
    narrowest, widest = span / FAR, span * FAR

    def set_levels(factor: np.float32, span: Floats) -> None:
        np.subtract(x, low, out=t)
        np.multiply(t, factor / span, out=t)
        round_levels(t, 0, nmax, -FAR if levels is None else np.nan, float(factor))

    def squared_error(scale: Floats, low: Floats) -> Floats:
        np.multiply(t, scale, out=b)
        np.add(b, low, out=b)
        np.subtract(b, x, out=b)
        np.multiply(b, b, out=b)
        np.multiply(b, w, out=b)
        return add(b, axis=0)

    scale = 1 / (np.float32(nmax) / span)
    set_levels(np.float32(nmax), span)
    best = squared_error(scale, low)
    if levels is not None:
        levels[:] = t
    for step in range(nstep + 1):
        set_levels(np.float32(rmin) + TENTH * np.float32(step) + np.float32(nmax), high - low)
        np.multiply(w, t, out=a)
        sum_l = add(a, axis=0)
        np.multiply(a, x, out=b)
        sum_xl = add(b, axis=0)
        a *= t
        sum_l2 = add(a, axis=0)
        det = sum_w * sum_l2 - sum_l * sum_l
        this_scale = (sum_w * sum_xl - sum_x * sum_l) / det
        this_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
        above = np.flatnonzero(this_low > 0)
        if len(above):
            this_low[above] = 0
            this_scale[above] = sum_xl[above] / sum_l2[above]
        error = squared_error(this_scale, this_low)
        better = (error < best) & (det > 0)
        np.copyto(best, error, where=better)
        np.copyto(scale, this_scale, where=better)
        np.copyto(low, this_low, where=better)
        span = high - low
        ordinary &= (span >= narrowest) & (span <= widest)
        if levels is not None:
            np.copyto(levels, t, where=better)
    return scale, ZERO - low, ordinary


def peak_of(x: Floats) -> Floats:
    """The value furthest from zero of each column, with its sign; the first of equals."""
    high, low = maximum(x, axis=0), minimum(x, axis=0)
    peak = np.where(high > -low, high, low)
    tie = np.flatnonzero(high == -low)
    if len(tie):
        columns = x[:, tie]
        first = np.abs(columns).argmax(axis=0)
        peak[tie] = np.take_along_axis(columns, first[None], axis=0)[0]
    return peak + ZERO  # never -0


def symmetric_scale(
    x: Floats, work: Sequence[Floats], nmax: int, levels: Floats | None = None
) -> Floats:
    """Fit x = scale * level, levels -nmax to nmax - 1, to the columns of ``x``, with weights x².

    ``work`` is four arrays like ``x``; ``levels``, where given, is filled in, plus ``nmax``.
    """
    assert x.flags.c_contiguous
    assert x.shape[1] > 1, "NumPy would add a single column pairwise"
    w, wx, t, a = work
    np.multiply(x, x, out=w)
    np.multiply(w, x, out=wx)
    peak = peak_of(x)
    scale = best = np.zeros_like(peak)
    for step in (0, *range(-9, 0), *range(1, 10)):
        factor = np.float32(nmax) + TENTH * np.float32(step)
        np.multiply(x, -factor / peak, out=t)
        round_levels(t, -nmax, nmax - 1, -float(factor), float(factor))
        np.multiply(w, t, out=a)
        a *= t
        sum_l2 = add(a, axis=0)
        np.multiply(wx, t, out=a)
        sum_lx = add(a, axis=0)
        if step == 0:
            better = sum_l2 != 0
            best = np.zeros_like(peak)
        else:
            better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        this_scale = sum_lx / sum_l2
        np.copyto(scale, this_scale, where=better)
        np.copyto(best, this_scale * sum_lx, where=better)
        if levels is not None:
            np.copyto(levels, t, where=better | (step == 0))
    zero = np.abs(peak) < GROUP_MAX_EPS
    scale[zero] = 0
    if levels is not None:
        levels += nmax
        levels[:, zero] = 0
    return scale
