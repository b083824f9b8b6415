"""Searches that move one level at a time: ``make_q3_quants`` and ``make_qp_quants``, compiled.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098. A sub-block of which no level has moved
in a pass would not move in another, so that all lanes may go on while one of them does.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    joined,
    least,
    load,
    most,
    part,
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
    inlined,
    kernel,
    level,
    nearest_int,
)
from lfm2gguf.quants.compiled.search import EPSILON

PASSES = 5
PAIR = 2 * LANES  # two sub-blocks of each block: one alone waits for its own divisions


@inlined
def load_pair(planes: Any, at: int) -> Any:
    """Return a number of two sub-blocks of 16 weights, that of the second one behind."""
    return joined(load(planes, at, LANES), load(planes, at + 16 * LANES, LANES))


@inlined
def store_pair(planes: Any, at: int, pair: Any) -> None:
    """Store what :func:`load_pair` loads."""
    store(planes, at, part(pair, 0, LANES))
    store(planes, at + 16 * LANES, part(pair, LANES, LANES))


@kernel
def descend(x: Any, at: int, levels: Any, nmax: Any, scales: Any, to: int) -> None:
    """Fit x = scale * level, weighed by x², one level after another (``make_q3_quants``).

    For two sub-blocks of 16 weights that follow each other. ``levels`` become those from 0 on.
    """
    low, high = I32(ZERO - nmax), I32(nmax - ONE)
    peak, far = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(16):
        v = load_pair(x, at + LANES * i)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    factor = (ZERO - nmax) / peak
    sum_lx, sum_l2 = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(16):
        v = load_pair(x, at + LANES * i)
        rung = to_float(level(factor * v, low, high))
        store_pair(levels, at + LANES * i, rung)
        sum_lx = sum_lx + v * v * v * rung
        sum_l2 = sum_l2 + v * v * rung * rung
    for _ in range(PASSES):
        changed = False
        for i in range(16):
            v, rung = load_pair(x, at + LANES * i), load_pair(levels, at + LANES * i)
            weight = v * v
            less_lx = sum_lx - weight * v * rung
            less_l2 = sum_l2 - weight * rung * rung
            new = to_float(level(v * less_l2 / less_lx, low, high))
            new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
            move = (less_lx > ZERO) & (new != rung) & (new_l2 > ZERO)
            move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            if any_true(move):
                changed = True
                store_pair(levels, at + LANES * i, where(move, new, rung))
                sum_lx, sum_l2 = where(move, new_lx, sum_lx), where(move, new_l2, sum_l2)
        if not changed:
            break
    zero = far < EPSILON
    scale = where(zero, ZERO, where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO))
    store(scales, to, part(scale, 0, LANES))
    store(scales, to + LANES, part(scale, LANES, LANES))
    for i in range(16):
        rung = load_pair(levels, at + LANES * i) + nmax
        store_pair(levels, at + LANES * i, where(zero, ZERO, rung))


@inlined
def wrapped(levels: Any) -> Any:
    """Return what a uint8 leaves of integers, as float32."""
    return to_float(levels & I32(255))


@kernel
def positive_scale(x: Any, w: Any, n: int, nmax: int, levels: Any, scales: Any) -> None:
    """Fit x = scale * level to ``n`` numbers of 16 blocks, weighed by ``w`` (``make_qp_quants``).

    Fills in the levels, 0 to ``nmax`` (a negative number's is what a uint8 leaves of it), and
    the scale of each block.
    """
    top = I32(nmax)
    peak = splat(ZERO, LANES)
    for j in range(n):
        peak = most(peak, load(x, LANES * j, LANES))
    inverse = F32(nmax) / peak
    scale, error = ONE / inverse, splat(ZERO, LANES)
    for j in range(n):
        v = load(x, LANES * j, LANES)
        off = v - scale * wrapped(nearest_int(inverse * v))
        error = error + load(w, LANES * j, LANES) * off * off
    for step in range(-4, 5):
        if step == 0:
            continue
        tried = (TENTH * F32(step) + F32(nmax)) / peak
        scale, this_error = ONE / tried, splat(ZERO, LANES)
        for j in range(n):
            v = load(x, LANES * j, LANES)
            off = v - scale * to_float(least(top, nearest_int(tried * v)))
            this_error = this_error + load(w, LANES * j, LANES) * off * off
        better = this_error < error
        error, inverse = where(better, this_error, error), where(better, tried, inverse)
    sum_lx, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
    for j in range(n):
        v, weight = load(x, LANES * j, LANES), load(w, LANES * j, LANES)
        found = least(top, nearest_int(inverse * v))
        rung = to_float(found)
        store(levels, LANES * j, wrapped(found))
        sum_lx = sum_lx + weight * v * rung
        sum_l2 = sum_l2 + weight * rung * rung
    for _ in range(PASSES):
        changed = False
        for j in range(n):
            v, weight = load(x, LANES * j, LANES), load(w, LANES * j, LANES)
            old = load(levels, LANES * j, LANES)
            less_lx = sum_lx - weight * v * old
            less_l2 = sum_l2 - weight * old * old
            found = least(top, nearest_int(v * less_l2 / less_lx))
            new = to_float(found)
            move = (less_lx > ZERO) & (less_l2 > ZERO) & (new != old)
            new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
            move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            if any_true(move):
                changed = True
                store(levels, LANES * j, where(move, wrapped(found), old))
                sum_lx, sum_l2 = where(move, new_lx, sum_lx), where(move, new_l2, sum_l2)
        if not changed:
            break
    zero = peak < EPSILON
    store(scales, 0, where(zero, ZERO, where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)))
    for j in range(n):
        store(levels, LANES * j, where(zero, ZERO, load(levels, LANES * j, LANES)))
