"""Q4_K, Q5_K and Q6_K, compiled: ``quantize_row_q[456]_K_ref`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/kquants.py``.
Scales are searched for sixteen sub-blocks side by side; levels, which nothing is summed of,
are made of weights in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.descent import positive_scale
from lfm2gguf.quants.compiled.lanes import joined, load, splat, store, to_bytes, truncated, where
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
    EPSILON,
    LANES,
    careful_search_with_min,
    columns,
    search_with_min,
    symmetric_levels,
    symmetric_search,
    total,
    weigh_by_size,
    weigh_by_square,
)

SUPER = 256  # weights in a super-block
U8 = np.uint8


# ---- Q4_K and Q5_K: two super-blocks of 8 sub-blocks of 32 at a time -----------------------------


@kernel
def quantize_scales(values: Any, start: int, bits: Any) -> Any:
    """Make 6-bit integers of the eight scales (or minima) from ``start`` on; return their scale."""
    top = ZERO
    for j in range(8):
        if values[start + j] > top:
            top = values[start + j]
    inverse = F32(63) / top if top > ZERO else ZERO
    for j in range(8):
        bits[j] = min(U8(63), U8(nearest_int_of(inverse * values[start + j])))
    return to_half(top / F32(63))


@inlined
def pack_scales(sc: Any, m: Any, out: Any, at: int) -> None:
    """Store eight scales and minima of 6 bits in 12 bytes."""
    for j in range(4):
        out[at + j] = sc[j] | ((sc[j + 4] >> 4) << 6)
        out[at + 4 + j] = m[j] | ((m[j + 4] >> 4) << 6)
        out[at + 8 + j] = (sc[j + 4] & 15) | ((m[j + 4] & 15) << 4)


@inlined
def unpack_scales(out: Any, at: int, sc: Any, m: Any) -> None:
    """Read what :func:`pack_scales` stored."""
    for j in range(4):
        sc[j], m[j] = out[at + j] & 63, out[at + 4 + j] & 63
        sc[j + 4] = (out[at + 8 + j] & 15) | ((out[at + j] >> 6) << 4)
        m[j + 4] = (out[at + 8 + j] >> 4) | ((out[at + 4 + j] >> 6) << 4)


@inlined
def column(planes: Any, k: int, size: int, row: Any, at: int) -> None:
    """Put the numbers of sub-block ``k`` in a row, from ``at`` on."""
    for i in range(size):
        row[at + i] = planes[LANES * i + k]


@inlined
def levels_of_32(x: Any, k: int, d: Any, dmin: Any, nmax: Any, kept: Any, row: Any) -> Any:
    """Return the levels of sub-block ``k``; C leaves those of the search where a scale is 0."""
    if d == ZERO:
        column(kept, k, 32, row, 0)
        return to_bytes(truncated(load(row, 0, 32)))
    return to_bytes(level((load(x, 32 * k, 32) + dmin) / d, I32(0), nmax))


@kernel
def pack_with_min(
    x: Any, block: int, d: Any, dmin: Any, nmax: int, kept: Any, row: Any, out: Any, at: int
) -> None:
    """Store the levels of a super-block whose 16 bytes of scales are there already."""
    low_bits = at + 48 if nmax > 15 else at + 16
    fifth = splat(U8(0), 32)
    for i in range(4):
        k = 8 * block + 2 * i
        a = levels_of_32(x, k, d[k], dmin[k], I32(nmax), kept, row)
        b = levels_of_32(x, k + 1, d[k + 1], dmin[k + 1], I32(nmax), kept, row)
        fifth = fifth | ((a >> U8(4)) << U8(2 * i)) | ((b >> U8(4)) << U8(2 * i + 1))
        store(out, low_bits + 32 * i, (a & U8(15)) | (b << U8(4)))
    if nmax > 15:
        store(out, at + 16, fifth)


@kernel
def encode_two_with_min(
    x: Any, weights: Any, n: int, fit: Any, size: int, out: Any, start: int, room: Any, bytes_: Any
) -> None:
    """Fill ``n`` super-blocks of ``size`` bytes, two at most, of ``out`` from ``start`` on.

    ``weights`` of their errors are given where there is an importance matrix, else none.
    """
    nmax, rmin, rdelta, nstep, most = fit
    planes, w, work, kept = room[0], room[1], room[2], room[3]
    scales, minima, flat, row = room[4, :32], room[4, 32:64], room[4, 64:96], room[4, 96:128]
    sc, m = bytes_[:8], bytes_[8:]
    columns(x, 32, planes)
    if weights.size:
        columns(weights, 32, w)
    else:
        weigh_by_size(planes, w)
    has_levels = search_with_min(
        planes, w, work, kept, 32, F32(nmax), rmin, rdelta, nstep, scales, minima, flat
    )
    if weights.size:
        total(w, 32, row)
    missing = False
    for block in range(n):
        at = start + block * size
        if weights.size:
            half = to_half(positive_scale(scales, 8 * block, row, 63, sc))
            half_min = to_half(positive_scale(minima, 8 * block, row, 63, m))
        else:
            half = quantize_scales(scales, 8 * block, sc)
            half_min = quantize_scales(minima, 8 * block, m)
        put_half(out, at, half)
        put_half(out, at + 2, half_min)
        for j in range(8):
            sc[j], m[j] = min(sc[j], U8(most)), min(m[j], U8(most))
        pack_scales(sc, m, out, at + 4)
        unpack_scales(out, at + 4, sc, m)
        d, dmin = from_half(half), from_half(half_min)
        for j in range(8):
            k = 8 * block + j
            scales[k], minima[k] = d * F32(sc[j]), dmin * F32(m[j])
            missing |= scales[k] == ZERO and flat[k] == ZERO
    if missing and not has_levels:
        careful_search_with_min(
            planes, w, work, kept, 32, F32(nmax), rmin, rdelta, nstep, row, row, row
        )
    if not (missing or has_levels):
        kept[:] = ZERO
    for block in range(n):
        pack_with_min(x, block, scales, minima, nmax, kept, row, out, start + block * size)


@driver
def encode_with_min(source: Any, weights: Any, out: Any, size: int, fit: Any) -> None:
    """Fill super-blocks of ``size`` bytes; ``fit`` is what C passes to its search."""
    x, room = np.empty(2 * SUPER, F32), np.empty((5, 32 * LANES), F32)
    w, bytes_ = np.zeros(2 * SUPER if weights.size else 0, F32), np.empty(16, U8)
    for first in range(0, source.size // SUPER, 2):
        n = min(2, source.size // SUPER - first)
        if n == 1:
            x[SUPER:] = ZERO
        widen(source, first * SUPER, n * SUPER, x)
        if weights.size:
            w[: n * SUPER] = weights[first * SUPER : (first + n) * SUPER]
        encode_two_with_min(x, w, n, fit, size, out, first * size, room, bytes_)


# The highest level, what is added to it at first and at each step, steps, the highest scale.
Q4_K_FIT = (15, F32(-1), TENTH, 20, 63)
Q5_K_FIT = (31, F32(-0.5), TENTH, 15, 63)
Q4_K_WEIGHTED_FIT = (15, F32(-0.9), F32(0.05), 36, 255)
Q5_K_WEIGHTED_FIT = (31, F32(-0.9), F32(0.05), 36, 63)


@driver
def encode_q4_k(source: Any, out: Any) -> None:
    """Fill blocks of Q4_K from weights."""
    encode_with_min(source, np.empty(0, F32), out, 144, Q4_K_FIT)


@driver
def encode_q5_k(source: Any, out: Any) -> None:
    """Fill blocks of Q5_K from weights."""
    encode_with_min(source, np.empty(0, F32), out, 176, Q5_K_FIT)


@driver
def encode_q4_k_weighted(source: Any, weights: Any, out: Any) -> None:
    """Fill blocks of Q4_K from weights and the weights of their errors."""
    encode_with_min(source, weights, out, 144, Q4_K_WEIGHTED_FIT)


@driver
def encode_q5_k_weighted(source: Any, weights: Any, out: Any) -> None:
    """Fill blocks of Q5_K from weights and the weights of their errors."""
    encode_with_min(source, weights, out, 176, Q5_K_WEIGHTED_FIT)


# ---- Q6_K: a super-block of 16 sub-blocks of 16 at a time ----------------------------------------


@kernel
def quantize_signed_scales(scales: Any, out: Any, at: int) -> Any:
    """Store sixteen scales in 8 bits, and turn them into what they will be read as.

    Returns the bits of their own scale, or -1 where all are next to nothing.
    """
    far, peak = ZERO, ZERO
    for j in range(16):
        if abs(scales[j]) > far:
            far, peak = abs(scales[j]), scales[j]
    if far < EPSILON:
        return -1
    inverse = F32(-128) / peak
    half = to_half(ONE / inverse)
    d = from_half(half)
    for j in range(16):
        stored = np.int8(min(I32(127), nearest_int_of(inverse * scales[j])))
        out[at + j] = U8(stored)
        scales[j] = d * F32(stored)
    return np.int64(half)


@inlined
def levels_of_two_16(x: Any, k: int, d: Any, kept: Any, row: Any) -> Any:
    """Return the levels, plus 32, of sub-blocks ``k`` and ``k + 1``."""
    scale = joined(splat(d[k], 16), splat(d[k + 1], 16))
    levels = level(load(x, 16 * k, 32) / scale, I32(-32), I32(31)) + I32(32)
    if d[k] == ZERO or d[k + 1] == ZERO:
        column(kept, k, 16, row, 0)
        column(kept, k + 1, 16, row, 16)
        return to_bytes(where(scale == ZERO, truncated(load(row, 0, 32)), levels))
    return to_bytes(levels)


@kernel
def pack_q6_k(x: Any, d: Any, kept: Any, row: Any, out: Any, at: int) -> None:
    """Store the levels of a super-block."""
    for half in range(2):
        a = levels_of_two_16(x, 8 * half, d, kept, row)
        b = levels_of_two_16(x, 8 * half + 2, d, kept, row)
        c = levels_of_two_16(x, 8 * half + 4, d, kept, row)
        e = levels_of_two_16(x, 8 * half + 6, d, kept, row)
        store(out, at + 64 * half, (a & U8(15)) | (c << U8(4)))
        store(out, at + 64 * half + 32, (b & U8(15)) | (e << U8(4)))
        top = (a >> U8(4)) | ((b >> U8(4)) << U8(2)) | ((c >> U8(4)) << U8(4))
        store(out, at + 128 + 32 * half, top | ((e >> U8(4)) << U8(6)))


@kernel
def encode_one_q6_k(x: Any, weights: Any, out: Any, at: int, room: Any) -> None:
    """Fill the super-block of ``out`` at ``at``."""
    planes, w, wx, kept = room[0], room[1], room[2], room[3]
    scales, flat, row = room[4, :32], room[4, 32:64], room[4, 64:96]
    columns(x, 16, planes)
    if weights.size:
        columns(weights, 16, w)
    else:
        weigh_by_square(planes, 16, w)
    symmetric_search(planes, w, wx, kept, 16, F32(32), 9, scales, flat)
    half = quantize_signed_scales(scales, out, at + 192)
    if half < 0:
        out[at : at + 210] = 0
        return
    put_half(out, at + 208, half)
    missing = False
    for j in range(16):
        missing |= scales[j] == ZERO and flat[j] == ZERO
    if missing:
        symmetric_levels(planes, w, wx, kept, 16, F32(32), 9, row, row)
    else:
        kept[:] = ZERO
    pack_q6_k(x, scales, kept, row, out, at)


@driver
def encode_q6_k_weighted(source: Any, weights: Any, out: Any) -> None:
    """Fill blocks of Q6_K from weights and the weights of their errors."""
    x, room = np.empty(SUPER, F32), np.empty((5, SUPER), F32)
    w = np.empty(SUPER if weights.size else 0, F32)
    for block in range(source.size // SUPER):
        widen(source, block * SUPER, SUPER, x)
        if weights.size:
            w[:] = weights[block * SUPER : (block + 1) * SUPER]
        encode_one_q6_k(x, w, out, block * 210, room)


@driver
def encode_q6_k(source: Any, out: Any) -> None:
    """Fill blocks of Q6_K from weights."""
    encode_q6_k_weighted(source, np.empty(0, F32), out)


ENCODERS = {"Q4_K": encode_q4_k, "Q5_K": encode_q5_k, "Q6_K": encode_q6_k}
WEIGHTED = {
    "Q4_K": encode_q4_k_weighted,
    "Q5_K": encode_q5_k_weighted,
    "Q6_K": encode_q6_k_weighted,
}
