"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, compiled: ``quantize_row_*_ref`` of ggml-quants.c.

And ``quantize_row_q[45]_[01]_impl``, with importance; llama.cpp commit 0c1e57098. A block of 32
weights is 32 lanes while its levels are made; the scales of sixteen blocks are made side by
side. How a block lies in memory is drawn in ``quants/legacy.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.groups import (
    LANES,
    columns,
    gather,
    gather_importance,
    variances_of_rows,
    weigh,
)
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    bits,
    first_true,
    flags,
    from_bits,
    lane,
    least,
    load,
    most,
    part,
    splat,
    store,
    to_bytes,
    transpose,
    truncated,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    INFINITY,
    ONE,
    ZERO,
    driver,
    inlined,
    kernel,
    level,
    put_half,
    read,
    to_halves,
)
from lfm2gguf.quants.compiled.search import search_with_min, symmetric_search

BLOCK = 32
TILE = LANES * LANES
U8 = np.uint8
ALMOST_HALF = np.nextafter(F32(0.5), F32(0))


@inlined
def store_nibbles(levels: Any, out: Any, at: int) -> None:
    """Store 32 levels of 4 bits: level j in the low nibble of byte j, j + 16 in the high one."""
    store(out, at, (part(levels, 0, 16) & U8(15)) | (part(levels, 16, 16) << U8(4)))


@inlined
def store_levels(levels: Any, five: bool, out: Any, at: int) -> None:
    """Store 32 levels of 4 bits, or of 5, the fifth ones before the others."""
    if not five:
        store_nibbles(levels, out, at)
        return
    fifth = flags((levels & U8(16)) == U8(16))
    for i in range(4):
        out[at + i] = U8((fifth >> (8 * i)) & 255)
    store_nibbles(levels, out, at + 4)


# ---- extremes of sixteen blocks ----------------------------------------------------------------


@kernel
def extremes(source: Any, first: int, count: int, work: Any) -> None:
    """Put the largest and the smallest weight of each block into planes 0 and 1 of ``work``."""
    highs, lows = work[LANES * 16 :], work[LANES * 32 :]
    for k in range(count):
        x = read(source, (first + k) * BLOCK)
        a, b = part(x, 0, 16), part(x, 16, 16)
        store(highs, LANES * k, most(a, b))
        store(lows, LANES * k, least(a, b))
    turned = work[LANES * 48 :]
    transpose(highs, 0, LANES, turned, 0, LANES)
    high = load(turned, 0, LANES)
    for i in range(1, LANES):
        high = most(high, load(turned, LANES * i, LANES))
    transpose(lows, 0, LANES, turned, 0, LANES)
    low = load(turned, 0, LANES)
    for i in range(1, LANES):
        low = least(low, load(turned, LANES * i, LANES))
    store(work, 0, high)
    store(work, LANES, low)


@inlined
def usable_inverse(d: Any) -> Any:
    """Return 1/d, and 0 for 0 and where that or ``d`` is no number.

    There C casts infinity and NaN to an 8-bit integer, which is undefined, and 0 on x86-64.
    """
    inverse = ONE / d
    return where((absolute(inverse) < INFINITY) & (absolute(d) < INFINITY), inverse, ZERO)


@kernel
def signed_scales(source: Any, first: int, count: int, half: int, work: Any, halves: Any) -> None:
    """Put the scales of blocks into plane 2 of ``work``, their inverses into plane 3.

    By the weight that is furthest from zero, the first of equals, and never -0.
    """
    extremes(source, first, count, work)
    high, low = load(work, 0, LANES), load(work, LANES, LANES)
    tied = (high == ZERO - low) & (high != ZERO)
    peak = where(high > ZERO - low, high, low) + ZERO
    if any_true(tied):
        store(work, 2 * LANES, peak)
        for k in range(count):
            if work[k] == -work[LANES + k]:
                x = read(source, (first + k) * BLOCK)
                work[2 * LANES + k] = lane(x, first_true(absolute(x) == work[k])) + ZERO
        peak = load(work, 2 * LANES, LANES)
    d = peak / F32(-half)
    store(work, 2 * LANES, d)
    store(work, 3 * LANES, usable_inverse(d))
    store(halves, 0, to_halves(d))


@kernel
def scales_with_min(source: Any, first: int, count: int, top: int, work: Any, halves: Any) -> None:
    """Put the inverse scales of blocks into plane 3 of ``work``; plane 1 has the minima."""
    extremes(source, first, count, work)
    high, low = load(work, 0, LANES), load(work, LANES, LANES)
    if any_true(low == ZERO):  # of which sign? C takes the first
        for k in range(count):
            if work[LANES + k] == ZERO:
                x = read(source, (first + k) * BLOCK)
                work[LANES + k] = lane(x, first_true(x == ZERO))
        low = load(work, LANES, LANES)
    d = (high - low + ZERO) / F32(top)
    store(work, 3 * LANES, usable_inverse(d))
    store(halves, 0, to_halves(d))
    store(halves, LANES, to_halves(low))


@kernel
def encode_plain(
    source: Any, first: int, count: int, half: int, top: int, work: Any, halves: Any, out: Any
) -> None:
    """Fill ``count`` blocks of Q4_0 (``half`` is 8), Q5_0 (16), Q4_1 (``top`` is 15), Q5_1 (31)."""
    five = half == 16 or top == 31
    size = (18 if half else 20) + (4 if five else 0)
    if half:
        signed_scales(source, first, count, half, work, halves)
    else:
        scales_with_min(source, first, count, top, work, halves)
    for k in range(count):
        at = (first + k) * size
        x, inverse = read(source, (first + k) * BLOCK), work[3 * LANES + k]
        put_half(out, at, halves[k])
        if half:
            levels = least(truncated(x * inverse + F32(half + 0.5)), I32(2 * half - 1))
            if inverse == ZERO and work[2 * LANES + k] != ZERO:
                levels = splat(I32(0), 32)
            store_levels(to_bytes(levels), five, out, at + 2)
        else:
            put_half(out, at + 2, halves[LANES + k])
            levels = least(truncated((x - work[LANES + k]) * inverse + F32(0.5)), I32(top))
            if inverse == ZERO:
                levels = splat(I32(0), 32)
            store_levels(to_bytes(levels), five, out, at + 4)


# ---- with importance: scales are searched ------------------------------------------------------


@kernel
def encode_searched(
    x: Any, q: Any, first: int, count: int, half: int, top: int, work: Any, halves: Any, out: Any
) -> None:
    """Fill the same blocks from a group, and its importance; the variances begin ``work``."""
    five = half == 16 or top == 31
    size = (18 if half else 20) + (4 if five else 0)
    found, planes, w, other = work[16:80], work[128:640], work[640:1152], work[1152:]
    columns(x, 0, BLOCK, BLOCK, planes, 0)
    columns(q, 0, BLOCK, BLOCK, w, 0)
    weigh(planes, 0, BLOCK, work, w)
    scales, lows, factors, starts = found[:16], found[16:32], found[32:48], found[48:]
    if half:
        symmetric_search(planes, 0, w, other, BLOCK, F32(half), scales, factors, starts, 0)
    else:
        search_with_min(
            planes, 0, w, other, BLOCK, F32(top), F32(-0.9), F32(0.05), 36,
            scales, lows, factors, starts, 0,
        )  # fmt: skip
        store(halves, LANES, to_halves(load(lows, 0, LANES)))
    store(halves, 0, to_halves(load(scales, 0, LANES)))
    for k in range(count):
        at, v = (first + k) * size, load(x, BLOCK * k, 32)
        put_half(out, at, halves[k])
        if half:
            levels = level(v * factors[k], I32(-half), I32(half - 1)) + I32(half)
            if starts[k] == ONE:  # all but zero
                levels = splat(I32(0), 32)
            store_levels(to_bytes(levels), five, out, at + 2)
        else:
            put_half(out, at + 2, halves[LANES + k])
            levels = level((v - starts[k]) * factors[k], I32(0), I32(top))
            store_levels(to_bytes(levels), five, out, at + 4)


@driver
def encode_blocks(source: Any, q: Any, rows: Any, n: int, half: int, top: int, out: Any) -> None:
    """Fill blocks of 32 from weights, and importance or none."""
    work, halves = np.zeros(8 * TILE, F32), np.zeros(2 * LANES, I32)
    blocks = source.size // BLOCK
    if not q.size:
        for first in range(0, blocks, LANES):
            count = min(LANES, blocks - first)
            encode_plain(source, first, count, half, top, work, halves, out)
        return
    variances = variances_of_rows(source, n)
    x, important = np.empty(LANES * BLOCK, F32), np.empty(LANES * BLOCK, F32)
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        gather(source, first, count, BLOCK, x)
        gather_importance(q, rows, n, first, count, BLOCK, important)
        for k in range(count):
            work[k] = variances[(first + k) * BLOCK // n]
        encode_searched(x, important, first, count, half, top, work, halves, out)


@driver
def encode_q4_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
    """Fill blocks of Q4_0."""
    encode_blocks(source, q, rows, n, 8, 0, out)


@driver
def encode_q4_1(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
    """Fill blocks of Q4_1."""
    encode_blocks(source, q, rows, n, 0, 15, out)


@driver
def encode_q5_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
    """Fill blocks of Q5_0."""
    encode_blocks(source, q, rows, n, 16, 0, out)


@driver
def encode_q5_1(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
    """Fill blocks of Q5_1."""
    encode_blocks(source, q, rows, n, 0, 31, out)


# ---- Q8_0 --------------------------------------------------------------------------------------


@kernel
def encode_eight_bits(
    source: Any, first: int, count: int, work: Any, halves: Any, out: Any
) -> None:
    """Fill ``count`` blocks of Q8_0."""
    extremes(source, first, count, work)
    d = most(load(work, 0, LANES), ZERO - load(work, LANES, LANES)) + ZERO
    d = d / F32(127)
    store(work, 3 * LANES, usable_inverse(d))
    store(halves, 0, to_halves(d))
    for k in range(count):
        at, x = (first + k) * 34, read(source, (first + k) * BLOCK)
        put_half(out, at, halves[k])
        scaled = absolute(x * work[3 * LANES + k]) + ALMOST_HALF  # roundf: half away from zero
        signed = from_bits(bits(scaled) | (bits(x) & I32(-0x80000000)))
        store(out, at + 2, to_bytes(truncated(signed)))


@driver
def encode_q8_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> None:
    """Fill blocks of Q8_0, which takes no importance."""
    work, halves = np.zeros(8 * TILE, F32), np.zeros(LANES, I32)
    blocks = source.size // BLOCK
    for first in range(0, blocks, LANES):
        encode_eight_bits(source, first, min(LANES, blocks - first), work, halves, out)


ENCODERS = {
    "Q4_0": encode_q4_0,
    "Q4_1": encode_q4_1,
    "Q5_0": encode_q5_0,
    "Q5_1": encode_q5_1,
    "Q8_0": encode_q8_0,
}
