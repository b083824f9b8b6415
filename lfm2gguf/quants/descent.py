"""Searches that move one level at a time: ``make_qp_quants`` and ``make_q3_quants``.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one sub-block per column, like
:mod:`lfm2gguf.quants.search`.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.quants.codec import Bytes, Floats, nearest_int
from lfm2gguf.quants.search import GROUP_MAX_EPS, ONE, TENTH, ZERO, furthest_from_zero, total

PASSES = 5


def positive_scale(x: Floats, w: Floats, nmax: int) -> tuple[Floats, Bytes]:
    """Fit x = scale * level, levels 0 to ``nmax``, to the columns of ``x``, weighed by ``w``.

    Returns scale and levels. A negative number's level is what C's cast to uint8 makes of it.
    """
    peak = np.zeros(x.shape[1], np.float32)
    for row in x:
        peak = np.where(peak > row, peak, row)  # as C's MAX treats NaN
    top = np.float32(nmax)
    inverse = top / peak
    error = _error(x, w, ONE / inverse, _wrap(nearest_int(inverse * x).astype(np.float32)))
    for step in (-4, -3, -2, -1, 1, 2, 3, 4):
        tried = (TENTH * np.float32(step) + top) / peak
        this_error = _error(x, w, ONE / tried, _nearest(tried * x, nmax))
        better = this_error < error
        np.putmask(error, better, this_error)
        np.putmask(inverse, better, tried)
    signed = _nearest(inverse * x, nmax)
    sum_lx, sum_l2 = total(w * x * signed), total(w * signed * signed)
    levels = _wrap(signed)
    for _ in range(PASSES):
        changed = False
        for i in range(len(x)):
            l, wx = levels[i], w[i] * x[i]  # noqa: E741
            slx, sl2 = sum_lx - wx * l, sum_l2 - w[i] * l * l
            new = _nearest(x[i] * sl2 / slx, nmax)
            move = (slx > 0) & (sl2 > 0) & (new != l)
            changed |= _move(move, (wx, w[i]), (slx, sl2), new, (sum_lx, sum_l2), l)
        if not changed:
            break
        _wrap(levels)
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, ZERO)
    empty = peak < GROUP_MAX_EPS
    scale[empty] = 0
    levels[:, empty] = 0
    return scale, levels.astype(np.uint8)


def signed_scale(x: Floats, nmax: int) -> tuple[Floats, Bytes]:
    """Fit x = scale * level, levels -nmax to nmax - 1, to the columns of ``x``, weighed by x².

    Returns scale, and the levels plus ``nmax``.
    """
    peak = furthest_from_zero(x)
    levels = np.clip(nearest_int(np.float32(-nmax) / peak * x), -nmax, nmax - 1)
    levels = levels.astype(np.float32)
    w = x * x
    sum_lx, sum_l2 = total(w * x * levels), total(w * levels * levels)
    for _ in range(PASSES):
        changed = False
        for i in range(len(x)):
            l, wx = levels[i], w[i] * x[i]  # noqa: E741
            slx, sl2 = sum_lx - wx * l, sum_l2 - w[i] * l * l
            new = np.clip(nearest_int(x[i] * sl2 / slx), -nmax, nmax - 1).astype(np.float32)
            move = (slx > 0) & (new != l)
            changed |= _move(move, (wx, w[i]), (slx, sl2), new, (sum_lx, sum_l2), l)
        if not changed:
            break
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, ZERO)
    levels += nmax
    empty = np.abs(peak) < GROUP_MAX_EPS
    scale[empty] = 0
    levels[:, empty] = 0
    return scale, levels.astype(np.uint8)


def _move(
    move: np.ndarray[tuple[int], np.dtype[np.bool_]],
    weights: tuple[Floats, Floats],
    without: tuple[Floats, Floats],
    new: Floats,
    sums: tuple[Floats, Floats],
    level: Floats,
) -> bool:
    """Change ``level`` to ``new`` where that fits better; sums of w*l*x and w*l² follow."""
    slx = without[0] + weights[0] * new
    sl2 = without[1] + weights[1] * new * new
    move &= (sl2 > 0) & (slx * slx * sums[1] > sums[0] * sums[0] * sl2)
    if not move.any():
        return False
    np.putmask(level, move, new)
    np.putmask(sums[0], move, slx)
    np.putmask(sums[1], move, sl2)
    return True


def _nearest(t: Floats, nmax: int) -> Floats:
    levels: Floats = np.minimum(nearest_int(t), nmax).astype(np.float32)
    return levels


def _wrap(levels: Floats) -> Floats:
    """What is left of them in a uint8, in place."""
    if (levels < 0).any() or (levels > 255).any():
        levels[:] = levels.astype(np.int32).astype(np.uint8)
    return levels


def _error(x: Floats, w: Floats, scale: Floats, levels: Floats) -> Floats:
    off = x - scale * levels
    return total(w * off * off)
