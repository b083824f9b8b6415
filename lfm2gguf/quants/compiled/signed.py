"""Q3_K and Q6_K, compiled: super-blocks of sixteen sub-blocks of sixteen weights around zero.

``quantize_row_q[36]_K_ref`` and ``quantize_row_q[36]_K_impl`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/kquants.py`` and
``quants/kquants_low.py``; sixteen super-blocks are searched side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.descent import descend
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
    most,
    splat,
    store,
    to_bytes,
    to_float,
    transpose,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    U32,
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
    EPSILON,
    symmetric_search,
    total,
    weigh_by_square,
)
from lfm2gguf.quants.compiled.withmin import GROUP, SUPER, U8, pair, store_pairs

SIZE = 16  # weights in a sub-block, and sub-blocks in a super-block


@kernel
def fit_sub_blocks(
    x: Any, planes: Any, q: Any, nmax: int, work: Any, found: Any, levels: Any, sums: Any,
    chosen: Any,
) -> None:  # fmt: skip
    """Search the scale of each sub-block; ``nmax`` is 4 (Q3_K) or 32 (Q6_K).

    ``q`` is the importance of the group, block after block, or empty. ``found`` gets planes of
    scales, factors and flags; those that C's search of Q3_K moves levels of have the fourth
    one set, and their levels in ``levels``.
    """
    if nmax == 4 and not q.size:
        descend(x, planes, levels, F32(nmax), work, chosen, found)
        return
    variance, w, room = work[:16], work[16:272], work[272:]
    if q.size and nmax == 4:
        sums_of_squares(planes, SUPER, variance)
        store(variance, 0, F32(2) * load(variance, 0, LANES) / F32(SUPER))
    for j in range(SIZE):
        at, to = SIZE * LANES * j, LANES * j
        if q.size:
            columns(q, SIZE * j, SUPER, SIZE, w, 0)
            if nmax == 4:
                weigh(planes, at, SIZE, variance, w)
                total(w, SIZE, sums, to)
        else:
            weigh_by_square(planes, at, SIZE, w)
        symmetric_search(
            planes, at, w, room, SIZE, F32(nmax), found[0], found[1], found[2], to, False
        )


@inlined
def furthest(values: Any) -> Any:
    """Return how far the furthest of sixteen numbers is from zero, and which that is."""
    far, peak = splat(ZERO, LANES), splat(ZERO, LANES)
    for j in range(SIZE):
        v = load(values, LANES * j, LANES)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    return far, peak


@inlined
def as_int8(x: Any) -> Any:
    """Return what an int8 leaves of integers."""
    return ((x & I32(255)) ^ I32(128)) - I32(128)


@kernel
def quantize_scales(values: Any, sums: Any, nmax: int, stored: Any, work: Any, halves: Any) -> None:
    """Make integers of the scales of 16 super-blocks, and turn them into what they are read as.

    Those of Q3_K (``nmax`` 4) are from -32 to 31, with importance (``sums`` of weights) searched
    like the weights; those of Q6_K from -128 to 127. ``halves`` gets the bits of their scale.
    """
    scale, factor, flat, room = work[:16], work[16:32], work[32:48], work[48:]
    if sums.size:
        symmetric_search(values, 0, sums, room, SIZE, F32(32), scale, factor, flat, 0, True)
        d = load(scale, 0, LANES)
    else:
        far, peak = furthest(values)
        inverse = (F32(-32) if nmax == 4 else F32(-128)) / peak
        none = peak == ZERO if nmax == 4 else far < EPSILON
        store(factor, 0, inverse)
        store(flat, 0, where(none, ONE, splat(ZERO, LANES)))
        d = where(none, ZERO, ONE / inverse)
    half = to_halves(d)
    store(halves, 0, half)
    d = from_halves(half)
    inverse, none = load(factor, 0, LANES), load(flat, 0, LANES) == ONE
    for j in range(SIZE):
        found = nearest_int(inverse * load(values, LANES * j, LANES))
        if sums.size:
            found = where(none, I32(-32), most(least(found, I32(31)), I32(-32)))
        elif nmax == 4:
            found = where(none, I32(-32), most(least(as_int8(found), I32(31)), I32(-32)))
        else:
            found = where(none, I32(0), as_int8(least(found, I32(127))))
        store(stored, LANES * j, found)
        store(values, LANES * j, d * to_float(found))


@inlined
def levels_of(x: Any, k: int, j: int, nmax: Any, found: Any, levels: Any) -> Any:
    """Return the levels, from 0 on, of sub-blocks ``j`` and ``j + 1`` of block ``k``.

    C leaves those of the search where a scale is 0: ``levels`` has those moved, or is empty.
    """
    low, high = I32(-nmax), I32(nmax - 1)
    a, b, at = LANES * j + k, LANES * (j + 1) + k, SUPER * k + SIZE * j
    v = load(x, at, 32)
    d = pair(found[0], a, b)
    rungs = level(v / d, low, high) + nmax
    if found[0, a] == ZERO or found[0, b] == ZERO:
        searched = level(pair(found[1], a, b) * v, low, high) + nmax
        searched = where(pair(found[2], a, b) == ONE, I32(0), searched)
        if levels.size:
            moved = nearest_int(load(levels, at, 32)) + nmax
            searched = where(pair(found[3], a, b) == ONE, moved, searched)
        rungs = where(d == ZERO, searched, rungs)
    return to_bytes(rungs)


@kernel
def pack_six_bits(x: Any, k: int, found: Any, stored: Any, half: int, out: Any, at: int) -> None:
    """Store super-block ``k`` as Q6_K."""
    none = found[2, :0]
    store(out, at + 192, load(stored, SIZE * k, SIZE))
    put_half(out, at + 208, half)
    for part in range(2):
        j = 8 * part
        a = levels_of(x, k, j, I32(32), found, none)
        b = levels_of(x, k, j + 2, I32(32), found, none)
        c = levels_of(x, k, j + 4, I32(32), found, none)
        e = levels_of(x, k, j + 6, I32(32), found, none)
        store(out, at + 64 * part, (a & U8(15)) | (c << U8(4)))
        store(out, at + 64 * part + 32, (b & U8(15)) | (e << U8(4)))
        top = (a >> U8(4)) | ((b >> U8(4)) << U8(2)) | ((c >> U8(4)) << U8(4))
        store(out, at + 128 + 32 * part, top | ((e >> U8(4)) << U8(6)))


@kernel
def pack_scales(stored: Any) -> None:
    """Turn the scales of 16 super-blocks of Q3_K into the 12 bytes that they are stored in."""
    for j in range(4):
        top = splat(I32(0), LANES)
        for i in range(4):
            bits = load(stored, LANES * (4 * i + j), LANES) + I32(32)
            top = top | ((bits >> I32(4)) << I32(2 * i))
        for i in (j, j + 4):
            low = load(stored, LANES * i, LANES) & I32(15)
            high = load(stored, LANES * (i + 8), LANES) & I32(15)
            store(stored, LANES * i, low | (high << I32(4)))
        store(stored, LANES * (j + 8), top)


@kernel
def pack_three_bits(
    x: Any, k: int, found: Any, levels: Any, stored: Any, half: int, out: Any, at: int
) -> None:
    """Store super-block ``k`` as Q3_K."""
    put_half(out, at + 108, half)
    store(out, at + 96, load(stored, SIZE * k, 8))
    store(out, at + 104, load(stored, SIZE * k + 8, 4))
    third = splat(U8(0), 32)
    for part in range(2):
        j = 8 * part
        a = levels_of(x, k, j, I32(4), found, levels)
        b = levels_of(x, k, j + 2, I32(4), found, levels)
        c = levels_of(x, k, j + 4, I32(4), found, levels)
        e = levels_of(x, k, j + 6, I32(4), found, levels)
        store_pairs(a, b, c, e, out, at + 32 + 32 * part)
        tops = (a >> U8(2)) | ((b >> U8(2)) << U8(1)) | ((c >> U8(2)) << U8(2))
        third = third | ((tops | ((e >> U8(2)) << U8(3))) << U8(4 * part))
    store(out, at, third)


@kernel
def encode_group(
    x: Any, q: Any, count: int, nmax: int, room: Any, stored: Any, halves: Any, out: Any, at: int
) -> None:
    """Fill ``count`` super-blocks of ``out`` from ``at`` on."""
    planes, levels, work = room[0], room[1], room[2]
    found, sums = room[3].reshape(16, 256)[:4], room[4, :256]
    searched = nmax == 4 and not q.size
    for j in range(SIZE):
        columns(x, SIZE * j, SUPER, SIZE, planes, LANES * SIZE * j)
    fit_sub_blocks(x, planes, q, nmax, work, found, levels, sums, stored)
    weights = sums if nmax == 4 and q.size else sums[:0]
    if nmax == 32:
        far, _ = furthest(found[0])
        store(room[4], 512, far)
    quantize_scales(found[0], weights, nmax, stored, work, halves)
    kept = levels if searched else levels[:0]
    if nmax == 4:
        pack_scales(stored)
    transpose(stored, 0, LANES, stored, 0, SIZE)  # block after block
    for k in range(count):
        if nmax == 4:
            pack_three_bits(x, k, found, kept, stored, halves[k], out, at + 110 * k)
        elif room[4, 512 + k] < EPSILON:  # all but zero: the whole block is
            out[at + 210 * k : at + 210 * (k + 1)] = 0
        else:
            pack_six_bits(x, k, found, stored, halves[k], out, at + 210 * k)


@driver
def encode_signed(source: Any, q: Any, rows: Any, n: int, nmax: int, out: Any, bytes_: int) -> Any:
    """Fill super-blocks of ``bytes_`` bytes; return whether all weights are finite."""
    x, important = aligned(GROUP), aligned(GROUP if q.size else 0)
    room, stored, halves = aligned(5 * GROUP), aligned(256).view(U32), np.empty(LANES, I32)
    room = room.reshape(5, GROUP)
    blocks = source.size // SUPER
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        if not gather(source, first, count, SUPER, x):
            return False
        if q.size:
            gather_importance(q, rows, n, first, count, SUPER, important)
        encode_group(x, important, count, nmax, room, stored, halves, out, first * bytes_)
    return True


@driver
def encode_q3_k(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q3_K from weights, and importance or none."""
    return encode_signed(source, q, rows, n, 4, out, 110)


@driver
def encode_q6_k(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of Q6_K from weights, and importance or none."""
    return encode_signed(source, q, rows, n, 32, out, 210)


LOOKS = True  # at what is not finite, itself
ENCODERS = {"Q3_K": encode_q3_k, "Q6_K": encode_q6_k}
