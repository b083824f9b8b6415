"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, compiled: ``quantize_row_*_ref`` of ggml-quants.c.

And ``quantize_row_q[45]_[01]_impl``, with importance; llama.cpp commit 0c1e57098. A block of 32
weights is 32 lanes while its levels are made; the scales of sixteen blocks are made side by
side. How a block lies in memory is drawn in ``quants/legacy.py``.

So little is done for each weight that to look through them all first would take a fifth of the
time: these kernels look as they go, and return whether all are finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.across import flags, part
from lfm2gguf.quants.compiled.extremes import (
    BLOCK,
    ROOM,
    STRIP,
    extremes,
    scales_with_min,
    signed_scales,
    usable_inverse,
)
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
    bits,
    from_bits,
    least,
    load,
    most,
    splat,
    store,
    to_bytes,
    truncated,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    ZERO,
    driver,
    finite,
    inlined,
    kernel,
    level,
    put_half,
    read,
    to_halves,
)
from lfm2gguf.quants.compiled.search import search_with_min, symmetric_search

U8 = np.uint8
ALMOST_HALF = np.nextafter(F32(0.5), F32(0))


@inlined
def store_nibbles(levels: Any, out: Any, at: int) -> None:
    """Store 32 levels of 4 bits: level j in the low nibble of byte j, j + 16 in the high one."""
    store(out, at, (part(levels, 0, 16) & I32(15)) | (part(levels, 16, 16) << I32(4)))


@inlined
def store_levels(levels: Any, five: bool, out: Any, at: int) -> None:
    """Store 32 levels of 4 bits, or of 5, the fifth ones before the others."""
    if not five:
        store_nibbles(levels, out, at)
        return
    fifth = flags((levels & I32(16)) == I32(16))
    for i in range(4):
        out[at + i] = U8((fifth >> (8 * i)) & 255)
    store_nibbles(levels, out, at + 4)


@kernel
def encode_plain(
    source: Any, first: int, count: int, half: int, top: int, work: Any, halves: Any, out: Any
) -> None:
    """Fill ``count`` blocks of Q4_0 (``half`` is 8), Q5_0 (16), Q4_1 (``top`` is 15), Q5_1 (31)."""
    five = half == 16 or top == 31
    size = (18 if half else 20) + (4 if five else 0)
    for to in range(0, count, LANES):
        if half:
            signed_scales(source, first + to, min(LANES, count - to), half, to, work, halves)
        else:
            scales_with_min(source, first + to, min(LANES, count - to), top, to, work, halves)
    for k in range(count):
        at = (first + k) * size
        x, inverse = read(source, (first + k) * BLOCK), work[3 * STRIP + k]
        put_half(out, at, halves[k])
        if half:
            levels = least(truncated(x * inverse + F32(half + 0.5)), I32(2 * half - 1))
            if inverse == ZERO and work[2 * STRIP + k] != ZERO:
                levels = splat(I32(0), 32)
            store_levels(levels, five, out, at + 2)
        else:
            put_half(out, at + 2, halves[STRIP + k])
            levels = least(truncated((x - work[STRIP + k]) * inverse + F32(0.5)), I32(top))
            if inverse == ZERO:
                levels = splat(I32(0), 32)
            store_levels(levels, five, out, at + 4)


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
        symmetric_search(planes, 0, w, other, BLOCK, F32(half), scales, factors, starts, 0, False)
    else:
        search_with_min(
            planes, 0, w, other, BLOCK, 1, False, F32(top), F32(-0.9), F32(0.05), 36,
            (scales, lows, factors, starts), 0,
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
            store_levels(levels, five, out, at + 2)
        else:
            put_half(out, at + 2, halves[LANES + k])
            levels = level((v - starts[k]) * factors[k], I32(0), I32(top))
            store_levels(levels, five, out, at + 4)


@driver
def encode_blocks(source: Any, q: Any, rows: Any, n: int, half: int, top: int, out: Any) -> Any:
    """Fill blocks of 32 from weights, and importance or none; return whether all are finite."""
    work, halves = np.zeros(2048, F32), np.zeros(2 * STRIP, I32)
    blocks = source.size // BLOCK
    if not q.size:
        for first in range(0, blocks, STRIP):
            count = min(STRIP, blocks - first)
            if not finite(source, first * BLOCK, (first + count) * BLOCK):
                return False
            encode_plain(source, first, count, half, top, work, halves, out)
        return True
    variances = variances_of_rows(source, n)
    x, important = np.empty(LANES * BLOCK, F32), np.empty(LANES * BLOCK, F32)
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        if not gather(source, first, count, BLOCK, x):
            return False
        gather_importance(q, rows, n, first, count, BLOCK, important)
        for k in range(count):
            work[k] = variances[(first + k) * BLOCK // n]
        encode_searched(x, important, first, count, half, top, work, halves, out)
    return True


@driver
def encode_q4_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q4_0."""
    return encode_blocks(source, q, rows, n, 8, 0, out)


@driver
def encode_q4_1(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q4_1."""
    return encode_blocks(source, q, rows, n, 0, 15, out)


@driver
def encode_q5_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q5_0."""
    return encode_blocks(source, q, rows, n, 16, 0, out)


@driver
def encode_q5_1(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q5_1."""
    return encode_blocks(source, q, rows, n, 0, 31, out)


# ---- Q8_0 --------------------------------------------------------------------------------------


@kernel
def encode_eight_bits(
    source: Any, first: int, count: int, work: Any, halves: Any, out: Any
) -> None:
    """Fill ``count`` blocks of Q8_0."""
    for to in range(0, count, LANES):
        extremes(source, first + to, min(LANES, count - to), to, work)
        d = most(load(work, to, LANES), ZERO - load(work, STRIP + to, LANES)) + ZERO
        d = d / F32(127)
        store(work, 3 * STRIP + to, usable_inverse(d))
        store(halves, to, to_halves(d))
    for k in range(count):
        at, x = (first + k) * 34, read(source, (first + k) * BLOCK)
        put_half(out, at, halves[k])
        scaled = absolute(x * work[3 * STRIP + k]) + ALMOST_HALF  # roundf: half away from zero
        signed = from_bits(bits(scaled) | (bits(x) & I32(-0x80000000)))
        store(out, at + 2, to_bytes(truncated(signed)))


@driver
def encode_q8_0(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q8_0, which takes no importance."""
    work, halves = np.zeros(ROOM, F32), np.zeros(STRIP, I32)
    blocks = source.size // BLOCK
    for first in range(0, blocks, STRIP):
        count = min(STRIP, blocks - first)
        if not finite(source, first * BLOCK, (first + count) * BLOCK):
            return False
        encode_eight_bits(source, first, count, work, halves, out)
    return True


LOOKS = True  # at what is not finite, itself
ENCODERS = {
    "Q4_0": encode_q4_0,
    "Q4_1": encode_q4_1,
    "Q5_0": encode_q5_0,
    "Q5_1": encode_q5_1,
    "Q8_0": encode_q8_0,
}
