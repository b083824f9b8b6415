"""Searches that move one level at a time: ``make_q3_quants`` and ``make_qp_quants``, compiled.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    load,
    splat,
    store,
    to_float,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    TENTH,
    ZERO,
    kernel,
    level,
    nearest_int_of,
)
from lfm2gguf.quants.compiled.search import EPSILON, LANES

PASSES = 5


@kernel
def descend(x: Any, levels: Any, size: int, nmax: Any, scales: Any, flat: Any) -> None:
    """Fit x = scale * level, weighed by x², one level after another (``make_q3_quants``).

    ``levels`` become those from 0 on; ``flat`` 1 where they are 0 throughout.
    """
    low, high = I32(ZERO - nmax), I32(nmax - ONE)
    peak, far = splat(ZERO, LANES), splat(ZERO, LANES)
    for i in range(size):
        v = load(x, LANES * i, LANES)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    factor = (ZERO - nmax) / peak
    sum_lx, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
    for i in range(size):
        v = load(x, LANES * i, LANES)
        rung = to_float(level(factor * v, low, high))
        store(levels, LANES * i, rung)
        sum_lx = sum_lx + v * v * v * rung
        sum_l2 = sum_l2 + v * v * rung * rung
    for _ in range(PASSES):
        changed = False
        for i in range(size):
            v, rung = load(x, LANES * i, LANES), load(levels, LANES * i, LANES)
            weight = v * v
            less_lx = sum_lx - weight * v * rung
            less_l2 = sum_l2 - weight * rung * rung
            new = to_float(level(v * less_l2 / less_lx, low, high))
            new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
            move = (less_lx > ZERO) & (new != rung) & (new_l2 > ZERO)
            move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            if any_true(move):
                changed = True
                store(levels, LANES * i, where(move, new, rung))
                sum_lx, sum_l2 = where(move, new_lx, sum_lx), where(move, new_l2, sum_l2)
        if not changed:
            break
    zero = far < EPSILON
    scale = where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)
    store(scales, 0, where(zero, ZERO, scale))
    store(flat, 0, where(zero, ONE, splat(ZERO, LANES)))
    for i in range(size):
        rung = load(levels, LANES * i, LANES) + nmax
        store(levels, LANES * i, where(zero, ZERO, rung))


@kernel
def positive_scale(x: Any, start: int, w: Any, nmax: int, levels: Any) -> Any:
    """Fit eight numbers from ``start`` on as scale * level, weighed by those of ``w`` there.

    Fills in the levels, 0 to ``nmax`` (a negative number's is what a uint8 leaves of it), and
    returns the scale.
    """
    n = 8
    peak = ZERO
    for j in range(n):
        peak = peak if peak > x[start + j] else x[start + j]
    if peak < EPSILON:
        levels[:n] = 0
        return ZERO
    inverse = F32(nmax) / peak
    scale = ONE / inverse
    error = ZERO
    for j in range(n):
        off = x[start + j] - scale * F32(np.uint8(nearest_int_of(inverse * x[start + j])))
        error += w[start + j] * off * off
    for step in range(-4, 5):
        if step == 0:
            continue
        tried = (TENTH * F32(step) + F32(nmax)) / peak
        scale = ONE / tried
        this_error = ZERO
        for j in range(n):
            off = x[start + j] - scale * F32(min(nmax, nearest_int_of(tried * x[start + j])))
            this_error += w[start + j] * off * off
        if this_error < error:
            error, inverse = this_error, tried
    sum_lx, sum_l2 = ZERO, ZERO
    for j in range(n):
        found = min(nmax, nearest_int_of(inverse * x[start + j]))
        levels[j] = np.uint8(found)
        sum_lx += w[start + j] * x[start + j] * F32(found)
        sum_l2 += w[start + j] * F32(found) * F32(found)
    for _ in range(PASSES):
        changed = False
        for j in range(n):
            weight, v, old = w[start + j], x[start + j], F32(levels[j])
            less_lx = sum_lx - weight * v * old
            less_l2 = sum_l2 - weight * old * old
            if less_lx > ZERO and less_l2 > ZERO:
                new = min(nmax, nearest_int_of(v * less_l2 / less_lx))
                if F32(new) != old:
                    less_lx += weight * v * F32(new)
                    less_l2 += weight * F32(new) * F32(new)
                    if less_lx * less_lx * sum_l2 > sum_lx * sum_lx * less_l2:
                        levels[j] = np.uint8(new)
                        sum_lx, sum_l2 = less_lx, less_l2
                        changed = True
        if not changed:
            break
    return sum_lx / sum_l2 if sum_l2 > ZERO else ZERO
