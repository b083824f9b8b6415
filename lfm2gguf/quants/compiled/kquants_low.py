"""Q2_K and Q3_K, compiled: ``quantize_row_q[23]_K_ref`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. A super-block's sixteen sub-blocks of sixteen weights are searched
side by side. How it lies in memory is drawn in ``quants/kquants_low.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.descent import descend
from lfm2gguf.quants.compiled.kquants import SUPER, U8, column
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    joined,
    load,
    splat,
    store,
    to_bytes,
    truncated,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    TENTH,
    ZERO,
    driver,
    from_half,
    inlined,
    kernel,
    level,
    nearest_int_of,
    put_half,
    to_half,
    widen,
)
from lfm2gguf.quants.compiled.search import (
    LANES,
    careful_search_by_distance,
    columns,
    search_by_distance,
)


@inlined
def levels_of_two(
    x: Any, k: int, d: Any, shift: Any, low: int, high: int, kept: Any, row: Any
) -> Any:
    """Return the levels, from 0 on, of sub-blocks ``k`` and ``k + 1``: (x + shift) / d.

    C leaves those of the search where a scale is 0.
    """
    scale = joined(splat(d[k], 16), splat(d[k + 1], 16))
    moved = load(x, 16 * k, 32) + joined(splat(shift[k], 16), splat(shift[k + 1], 16))
    levels = level(moved / scale, I32(low), I32(high)) - I32(low)
    if d[k] == ZERO or d[k + 1] == ZERO:
        column(kept, k, 16, row, 0)
        column(kept, k + 1, 16, row, 16)
        return to_bytes(where(scale == ZERO, truncated(load(row, 0, 32)), levels))
    return to_bytes(levels)


@inlined
def store_pairs(a: Any, b: Any, c: Any, e: Any, out: Any, at: int) -> None:
    """Store the low two bits of four times 32 levels in 32 bytes."""
    pairs = (a & U8(3)) | ((b & U8(3)) << U8(2)) | ((c & U8(3)) << U8(4)) | (e << U8(6))
    store(out, at, pairs)


@kernel
def four_bit_scales(values: Any, bits: Any) -> Any:
    """Make integers of 16 scales (or minima), at most 15; return the bits of their scale."""
    top = ZERO
    for j in range(16):
        if values[j] > top:
            top = values[j]
    inverse = F32(15) / top if top > ZERO else ZERO
    for j in range(16):
        bits[j] = U8(nearest_int_of(inverse * values[j]))
    return to_half(top / F32(15))


@kernel
def encode_one_q2_k(x: Any, out: Any, at: int, room: Any, bits: Any) -> None:
    """Fill the super-block of ``out`` at ``at``."""
    planes, w, work, kept = room[0], room[1], room[2], room[3]
    scales, minima, flat, row = room[4, :32], room[4, 32:64], room[4, 64:96], room[4, 96:128]
    sc, m = bits[:16], bits[16:]
    columns(x, 16, planes)
    for i in range(16):
        store(w, LANES * i, absolute(load(planes, LANES * i, LANES)))
    has_levels = search_by_distance(
        planes, w, work, kept, 16, F32(3), F32(-0.5), TENTH, 15, scales, minima, flat
    )
    half, half_min = four_bit_scales(scales, sc), four_bit_scales(minima, m)
    put_half(out, at + 80, half)
    put_half(out, at + 82, half_min)
    d, dmin = from_half(half), from_half(half_min)
    missing = False
    for j in range(16):
        packed = sc[j] | U8(m[j] << 4)
        out[at + j] = packed
        scales[j], minima[j] = d * F32(packed & 15), dmin * F32(packed >> 4)
        missing |= scales[j] == ZERO and flat[j] == ZERO
    if missing and not has_levels:
        careful_search_by_distance(
            planes, w, work, kept, 16, F32(3), F32(-0.5), TENTH, 15, row, row, row
        )
    if not (missing or has_levels):
        kept[:] = ZERO
    for half_block in range(2):
        k = 8 * half_block
        a = levels_of_two(x, k, scales, minima, 0, 3, kept, row)
        b = levels_of_two(x, k + 2, scales, minima, 0, 3, kept, row)
        c = levels_of_two(x, k + 4, scales, minima, 0, 3, kept, row)
        e = levels_of_two(x, k + 6, scales, minima, 0, 3, kept, row)
        store_pairs(a, b, c, e, out, at + 16 + 32 * half_block)


@kernel
def six_bit_scales(scales: Any, out: Any, at: int) -> Any:
    """Store 16 scales in 12 bytes, and turn them into what they will be read as.

    Returns the bits of their own scale.
    """
    far, peak = ZERO, ZERO
    for j in range(16):
        if abs(scales[j]) > far:
            far, peak = abs(scales[j]), scales[j]
    for j in range(12):
        out[at + j] = 0
    half = to_half(ZERO)
    if peak != ZERO:
        inverse = F32(-32) / peak
        half = to_half(ONE / inverse)
        for j in range(16):
            stored = I32(np.int8(nearest_int_of(inverse * scales[j])))
            stored = max(I32(-32), min(I32(31), stored)) + I32(32)
            out[at + j % 8] |= U8((stored & 15) << (4 * (j // 8)))
            out[at + 8 + j % 4] |= U8((stored >> 4) << (2 * (j // 4)))
    d = from_half(half)
    for j in range(16):
        low = (I32(out[at + j % 8]) >> I32(4 * (j // 8))) & I32(15)
        top = (I32(out[at + 8 + j % 4]) >> I32(2 * (j // 4))) & I32(3)
        scales[j] = d * F32((low | (top << I32(4))) - I32(32))
    return half


@kernel
def encode_one_q3_k(x: Any, out: Any, at: int, room: Any) -> None:
    """Fill the super-block of ``out`` at ``at``."""
    planes, kept = room[0], room[1]
    scales, none, flat, row = room[4, :32], room[4, 32:64], room[4, 64:96], room[4, 96:128]
    none[:] = ZERO
    columns(x, 16, planes)
    descend(planes, kept, 16, F32(4), scales, flat)
    put_half(out, at + 108, six_bit_scales(scales, out, at + 96))
    third = splat(U8(0), 32)
    for half_block in range(2):
        k = 8 * half_block
        a = levels_of_two(x, k, scales, none, -4, 3, kept, row)
        b = levels_of_two(x, k + 2, scales, none, -4, 3, kept, row)
        c = levels_of_two(x, k + 4, scales, none, -4, 3, kept, row)
        e = levels_of_two(x, k + 6, scales, none, -4, 3, kept, row)
        store_pairs(a, b, c, e, out, at + 32 + 32 * half_block)
        tops = (a >> U8(2)) | ((b >> U8(2)) << U8(1)) | ((c >> U8(2)) << U8(2))
        third = third | ((tops | ((e >> U8(2)) << U8(3))) << U8(4 * half_block))
    store(out, at, third)


@driver
def encode_q2_k(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    x, room, bits = np.empty(SUPER, F32), np.empty((5, SUPER), F32), np.empty(32, U8)
    for block in range(source.size // SUPER):
        widen(source, block * SUPER, SUPER, x)
        encode_one_q2_k(x, out, block * 84, room, bits)


@driver
def encode_q3_k(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    x, room = np.empty(SUPER, F32), np.empty((5, SUPER), F32)
    for block in range(source.size // SUPER):
        widen(source, block * SUPER, SUPER, x)
        encode_one_q3_k(x, out, block * 110, room)


ENCODERS = {"Q2_K": encode_q2_k, "Q3_K": encode_q3_k}
