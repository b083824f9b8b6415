"""Q2_K, Q4_K and Q5_K, compiled: super-blocks whose sub-blocks have a scale and a minimum.

``quantize_row_q[245]_K_ref`` and ``quantize_row_q[245]_K_impl`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/kquants.py`` and
``quants/kquants_low.py``. Scales are searched for the sub-blocks of sixteen super-blocks side by
side; levels, which nothing is summed of, are made of weights in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants import kquants, kquants_low
from lfm2gguf.quants.codec import Codec
from lfm2gguf.quants.compiled.across import joined
from lfm2gguf.quants.compiled.descent import positive_scale
from lfm2gguf.quants.compiled.groups import (
    LANES,
    aligned,
    columns,
    gather,
    gather_importance,
    sums_of_squares,
    weigh,
)
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    least,
    load,
    splat,
    store,
    to_bytes,
    to_float,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ZERO,
    driver,
    from_halves,
    inlined,
    kernel,
    level,
    nearest_int,
    put_half,
    to_halves,
)
from lfm2gguf.quants.compiled.search import (
    search_with_min,
    total,
    weigh_by_size,
)
from lfm2gguf.quants.withmin import EncodeWithMin

SUPER = 256  # weights in a super-block
GROUP = SUPER * LANES
TEAM = 2  # sub-blocks that are searched by turns
U8 = np.uint8


@kernel
def fit_sub_blocks(
    planes: Any, q: Any, size: int, fit: Any, room: Any, found: Any, sums: Any
) -> None:
    """Search the scale and the minimum of each sub-block of ``size`` weights.

    ``q`` is the importance of the group, block after block, or empty; ``found`` gets four
    planes for each sub-block, of scales, lows, factors and starts, ``sums`` those of weights.
    """
    nmax, rmin, rdelta, nstep = fit
    variance, w, work = room[:16], room[16 : 16 + TEAM * 512], room[16 + TEAM * 512 :]
    if q.size:
        sums_of_squares(planes, SUPER, variance)
        factor = F32(1) if size == 16 else F32(2)
        store(variance, 0, factor * load(variance, 0, LANES) / F32(SUPER))
    for j in range(0, SUPER // size, TEAM):
        at, to = LANES * size * j, LANES * j
        for k in range(TEAM):
            weights = w[LANES * size * k :]
            if q.size:
                columns(q, size * (j + k), SUPER, size, weights, 0)
                weigh(planes, at + LANES * size * k, size, variance, weights)
                total(weights, size, sums, to + LANES * k)
            elif size == 32:
                weigh_by_size(planes, at + LANES * size * k, weights)
            else:
                for i in range(size):
                    v = load(planes, at + LANES * (size * k + i), LANES)
                    store(weights, LANES * i, absolute(v))
        search_with_min(
            planes, at, w, work, size, TEAM, size == 16 and not q.size, F32(nmax), rmin, rdelta,
            nstep, (found[0], found[1], found[2], found[3]), to,
        )  # fmt: skip


@kernel
def by_largest(values: Any, n: int, top: int, stored: Any, scale: Any) -> None:
    """Make integers up to ``top`` of the ``n`` scales (or minima) of 16 super-blocks."""
    peak = splat(ZERO, LANES)
    for j in range(n):
        v = load(values, LANES * j, LANES)
        peak = where(v > peak, v, peak)
    inverse = where(peak > ZERO, F32(top) / peak, ZERO)
    for j in range(n):
        level_ = nearest_int(inverse * load(values, LANES * j, LANES)) & I32(255)
        store(stored, LANES * j, to_float(level_))
    store(scale, 0, peak / F32(top))


@kernel
def quantize_scales(
    values: Any, sums: Any, n: int, most: int, stored: Any, scale: Any, halves: Any
) -> None:
    """Make integers, at most ``most``, of the ``n`` scales (or minima) of 16 super-blocks.

    ``halves`` gets the bits of their own scale, ``scale`` what these are read as.
    """
    top = 63 if n == 8 else 15
    if sums.size:
        positive_scale(values, sums, n, top, stored, scale)
    else:
        by_largest(values, n, top, stored, scale)
    for j in range(n):
        store(stored, LANES * j, least(load(stored, LANES * j, LANES), F32(most)))
    half = to_halves(load(scale, 0, LANES))
    store(halves, 0, half)
    store(scale, 0, from_halves(half))


@inlined
def pack_six_bits(sc: Any, m: Any, k: int, out: Any, at: int) -> None:
    """Store eight scales and minima of 6 bits in 12 bytes."""
    for j in range(4):
        low, high = U8(sc[LANES * j + k]), U8(sc[LANES * (j + 4) + k])
        low_m, high_m = U8(m[LANES * j + k]), U8(m[LANES * (j + 4) + k])
        out[at + j] = low | ((high >> 4) << 6)
        out[at + 4 + j] = low_m | ((high_m >> 4) << 6)
        out[at + 8 + j] = (high & 15) | ((high_m & 15) << 4)


@inlined
def scale_of(data: Any, at: int, j: int) -> Any:
    """Return scale ``j`` of those that :func:`pack_six_bits` stored; minima are from 8 on."""
    low, high = j & 3, (j >> 3) << 2
    if j & 4:
        nibble = data[at + 8 + low] >> high & 15
        return U8(nibble | (data[at + high + low] >> 6) << 4)
    return U8(data[at + high + low] & 63)


@inlined
def pair(values: Any, a: int, b: int) -> Any:
    """Return sixteen times one number, then sixteen times the other."""
    return joined(splat(values[a], 16), splat(values[b], 16))


@inlined
def levels_of(x: Any, k: int, j: int, size: int, found: Any, nmax: Any) -> Any:
    """Return the levels of 32 weights of block ``k``, from its sub-block ``j`` on.

    C leaves those of the search where a scale is 0.
    """
    a, b = LANES * j + k, LANES * (j + 32 // size - 1) + k
    v = load(x, SUPER * k + size * j, 32)
    d, dmin = pair(found[0], a, b), pair(found[1], a, b)
    levels = level((v + dmin) / d, I32(0), nmax)
    if found[0, a] == ZERO or found[0, b] == ZERO:
        searched = level(pair(found[2], a, b) * (v - pair(found[3], a, b)), I32(0), nmax)
        levels = where(d == ZERO, searched, levels)
    return to_bytes(levels)


@kernel
def pack_four_or_five_bits(
    x: Any, k: int, found: Any, nmax: int, stored: Any, d: Any, halves: Any, out: Any, at: int
) -> None:
    """Store super-block ``k`` as Q4_K or Q5_K."""
    put_half(out, at, halves[0, k])
    put_half(out, at + 2, halves[1, k])
    pack_six_bits(stored[0], stored[1], k, out, at + 4)
    for j in range(8):
        found[0, LANES * j + k] = d[0, k] * F32(scale_of(out, at + 4, j))
        found[1, LANES * j + k] = d[1, k] * F32(scale_of(out, at + 4, 8 + j))
    low_bits = at + 48 if nmax > 15 else at + 16
    fifth = splat(U8(0), 32)
    for i in range(4):
        a = levels_of(x, k, 2 * i, 32, found, I32(nmax))
        b = levels_of(x, k, 2 * i + 1, 32, found, I32(nmax))
        fifth = fifth | ((a >> U8(4)) << U8(2 * i)) | ((b >> U8(4)) << U8(2 * i + 1))
        store(out, low_bits + 32 * i, (a & U8(15)) | (b << U8(4)))
    if nmax > 15:
        store(out, at + 16, fifth)


@inlined
def store_pairs(a: Any, b: Any, c: Any, e: Any, out: Any, at: int) -> None:
    """Store the low two bits of four times 32 levels in 32 bytes."""
    pairs = (a & U8(3)) | ((b & U8(3)) << U8(2)) | ((c & U8(3)) << U8(4)) | (e << U8(6))
    store(out, at, pairs)


@kernel
def pack_two_bits(
    x: Any, k: int, found: Any, stored: Any, d: Any, halves: Any, out: Any, at: int
) -> None:
    """Store super-block ``k`` as Q2_K."""
    put_half(out, at + 80, halves[0, k])
    put_half(out, at + 82, halves[1, k])
    for j in range(16):
        packed = U8(stored[0, LANES * j + k]) | U8(U8(stored[1, LANES * j + k]) << 4)
        out[at + j] = packed
        found[0, LANES * j + k] = d[0, k] * F32(packed & 15)
        found[1, LANES * j + k] = d[1, k] * F32(packed >> 4)
    for half in range(2):
        j = 8 * half
        a = levels_of(x, k, j, 16, found, I32(3))
        b = levels_of(x, k, j + 2, 16, found, I32(3))
        c = levels_of(x, k, j + 4, 16, found, I32(3))
        e = levels_of(x, k, j + 6, 16, found, I32(3))
        store_pairs(a, b, c, e, out, at + 16 + 32 * half)


@kernel
def encode_group(
    x: Any, q: Any, count: int, size: int, fit: Any, most: int, room: Any, halves: Any, out: Any,
    at: int, bytes_: int,
) -> None:  # fmt: skip
    """Fill ``count`` super-blocks of ``bytes_`` bytes of ``out`` from ``at`` on."""
    n = SUPER // size
    planes, found, stored = room[0], room[1].reshape(16, 256)[:4], room[2].reshape(16, 256)[:2]
    work, sums, d = room[3], room[4][:256], room[5][:32].reshape(2, 16)
    for j in range(n):
        columns(x, size * j, SUPER, size, planes, LANES * size * j)
    fit_sub_blocks(planes, q, size, fit, work, found, sums)
    for j in range(n):
        store(found[1], LANES * j, ZERO - load(found[1], LANES * j, LANES))
    weights = sums if q.size else sums[:0]
    quantize_scales(found[0], weights, n, most, stored[0], d[0], halves[0])
    quantize_scales(found[1], weights, n, most, stored[1], d[1], halves[1])
    for k in range(count):
        to = at + k * bytes_
        if size == 16:
            pack_two_bits(x, k, found, stored, d, halves, out, to)
        else:
            pack_four_or_five_bits(x, k, found, fit[0], stored, d, halves, out, to)


@driver
def encode_with_min(
    source: Any, q: Any, rows: Any, n: int, size: int, fit: Any, most: int, out: Any, bytes_: int
) -> Any:
    """Fill super-blocks of ``bytes_`` bytes, and return whether all weights are finite.

    ``fit`` is what C passes to its search.
    """
    x, important = aligned(GROUP), aligned(GROUP if q.size else 0)
    room, halves = aligned(6 * GROUP).reshape(6, GROUP), np.empty((2, LANES), I32)
    blocks = source.size // SUPER
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        if not gather(source, first, count, SUPER, x):
            return False
        if q.size:
            gather_importance(q, rows, n, first, count, SUPER, important)
        encode_group(
            x, important, count, size, fit, most, room, halves, out, first * bytes_, bytes_
        )
    return True


def _fits(codec: Codec) -> tuple[tuple[Any, ...], tuple[Any, ...], int, int]:
    """Return what C passes to its search, without importance and with it, and the highest scales.

    A fit is the highest level, what is added to it at first and at each step, and the steps.
    """
    encode = codec.encode
    assert isinstance(encode, EncodeWithMin)
    plain, weighted = (
        (fit.search.nmax, F32(fit.search.rmin), F32(fit.search.rdelta), fit.search.nstep)
        for fit in (encode.plain, encode.weighted)
    )
    return plain, weighted, encode.plain.most, encode.weighted.most


def _make_encoder(codec: Codec) -> Any:
    size, bytes_ = codec.sub_block, codec.type.type_size
    plain, weighted, most, most_weighted = _fits(codec)

    @driver
    def encode(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
        if q.size:
            return encode_with_min(source, q, rows, n, size, weighted, most_weighted, out, bytes_)
        return encode_with_min(source, q, rows, n, size, plain, most, out, bytes_)

    return encode


LOOKS = True  # at what is not finite, itself
ENCODERS = {
    codec.type.name: _make_encoder(codec)
    for codec in (*kquants.CODECS, *kquants_low.CODECS)
    if codec.compiled == "withmin"
}
