"""Scales of blocks of 32 by their largest and smallest weights, compiled: Q4_0 to Q5_1, and Q8_0.

Sixteen blocks at a time, a strip of blocks before their levels are made: divisions take their
time. A strip has planes of a number for each block: the largest weight, the smallest, the
scale and its inverse. How the scales are made stands in ``quants/legacy.py``.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.across import (
    any_true,
    first_true,
    fold_largest,
    fold_smallest,
    lane,
    part,
)
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import absolute, least, load, most, store, where
from lfm2gguf.quants.compiled.numbers import (
    F32,
    INFINITY,
    ONE,
    ZERO,
    inlined,
    kernel,
    read,
    to_halves,
)

BLOCK = 32
STRIP = 4 * LANES
PLANES = 4
ROOM = PLANES * STRIP + 8 * LANES  # numbers in the planes of a strip, and what they are made in


@inlined
def extremes_of_block(source: Any, first: int, k: int, count: int) -> Any:
    """Return lanes of which the largest and the smallest are those of block ``k``, or the last."""
    x = read(source, (first + min(k, count - 1)) * BLOCK)
    a, b = part(x, 0, 16), part(x, 16, 16)
    return most(a, b), least(a, b)


@kernel
def extremes(source: Any, first: int, count: int, to: int, work: Any) -> None:
    """Put the largest and the smallest weight of each of 16 blocks into planes 0 and 1.

    Blocks are folded in pairs, so that at last lane k is of block k.
    """
    rows = work[PLANES * STRIP :]
    for k in range(4):
        high_a, low_a = extremes_of_block(source, first, k, count)
        high_b, low_b = extremes_of_block(source, first, k + 4, count)
        high_c, low_c = extremes_of_block(source, first, k + 8, count)
        high_e, low_e = extremes_of_block(source, first, k + 12, count)
        high = fold_largest(fold_largest(high_a, high_c, 8), fold_largest(high_b, high_e, 8), 4)
        low = fold_smallest(fold_smallest(low_a, low_c, 8), fold_smallest(low_b, low_e, 8), 4)
        store(rows, LANES * k, high)
        store(rows, LANES * (k + 4), low)
    a, b, c, e = load_four(rows, 0)
    store(work, to, fold_largest(fold_largest(a, c, 2), fold_largest(b, e, 2), 1))
    a, b, c, e = load_four(rows, 4 * LANES)
    store(work, STRIP + to, fold_smallest(fold_smallest(a, c, 2), fold_smallest(b, e, 2), 1))


@inlined
def load_four(rows: Any, at: int) -> Any:
    """Return four vectors that follow each other."""
    a, b = load(rows, at, LANES), load(rows, at + LANES, LANES)
    return a, b, load(rows, at + 2 * LANES, LANES), load(rows, at + 3 * LANES, LANES)


@inlined
def usable_inverse(d: Any) -> Any:
    """Return 1/d, and 0 for 0 and where that or ``d`` is no number.

    There C casts infinity and NaN to an 8-bit integer, which is undefined, and 0 on x86-64.
    """
    inverse = ONE / d
    return where((absolute(inverse) < INFINITY) & (absolute(d) < INFINITY), inverse, ZERO)


@kernel
def signed_scales(
    source: Any, first: int, count: int, half: int, to: int, work: Any, halves: Any
) -> None:
    """Put the scales of blocks into plane 2 of ``work``, their inverses into plane 3.

    By the weight that is furthest from zero, the first of equals, and never -0.
    """
    extremes(source, first, count, to, work)
    high, low = load(work, to, LANES), load(work, STRIP + to, LANES)
    tied = (high == ZERO - low) & (high != ZERO)
    peak = where(high > ZERO - low, high, low) + ZERO
    if any_true(tied):
        store(work, 2 * STRIP + to, peak)
        for k in range(to, to + count):
            if work[k] == -work[STRIP + k]:
                x = read(source, (first + k - to) * BLOCK)
                work[2 * STRIP + k] = lane(x, first_true(absolute(x) == work[k])) + ZERO
        peak = load(work, 2 * STRIP + to, LANES)
    d = peak / F32(-half)
    store(work, 2 * STRIP + to, d)
    store(work, 3 * STRIP + to, usable_inverse(d))
    store(halves, to, to_halves(d))


@kernel
def scales_with_min(
    source: Any, first: int, count: int, top: int, to: int, work: Any, halves: Any
) -> None:
    """Put the inverse scales of blocks into plane 3 of ``work``; plane 1 has the minima."""
    extremes(source, first, count, to, work)
    high, low = load(work, to, LANES), load(work, STRIP + to, LANES)
    if any_true(low == ZERO):  # of which sign? C takes the first
        for k in range(to, to + count):
            if work[STRIP + k] == ZERO:
                x = read(source, (first + k - to) * BLOCK)
                work[STRIP + k] = lane(x, first_true(x == ZERO))
        low = load(work, STRIP + to, LANES)
    d = (high - low + ZERO) / F32(top)
    store(work, 3 * STRIP + to, usable_inverse(d))
    store(halves, to, to_halves(d))
    store(halves, STRIP + to, to_halves(low))
