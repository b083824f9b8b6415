"""IQ4_NL and IQ4_XS, compiled: ``quantize_row_iq4_nl_impl`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. The sixteen levels, and how a block lies in memory, stand in
``quants/nonlinear.py``. A level's number is how many of the middles between levels it is not
below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.groups import (
    LANES,
    columns,
    gather,
    gather_importance,
    sums_of_squares,
    weigh,
)
from lfm2gguf.quants.compiled.lanes import (
    HAS_TABLES,
    absolute,
    bits,
    least,
    load,
    most,
    splat,
    store,
    table,
    to_float,
    truncated,
    where,
)
from lfm2gguf.quants.compiled.legacy import store_nibbles
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    ZERO,
    driver,
    inlined,
    kernel,
    nearest_int,
    put_half,
    to_halves,
)
from lfm2gguf.quants.compiled.search import EPSILON, weigh_by_square
from lfm2gguf.quants.nonlinear import TRIES, VALUES

BLOCK = 32
U8 = np.uint8
LOWEST, HIGHEST = F32(VALUES[0]), F32(VALUES[-1])
MIDDLES = tuple(F32(x) for x in (VALUES[1:] + VALUES[:-1]) / 2)
GAPS = tuple(F32(x) for x in np.diff(VALUES))


EIGHTHS = F32(1.5 * 2.0**26)  # a sum with it has x / 8, rounded, in the low bits of its mantissa


def _parting(number: int) -> tuple[float, int, int]:
    """Return where levels part among the t whose t / 8 rounds to these five low bits, and which.

    At one middle at most: they are more than 8 apart. With 15 and -15, 16 and 17 share their
    bits with numbers of the other sign: all of these are beneath the first middle or beyond the
    last, and part at 0. So it is for any t nearer to 0 than 140.
    """
    eighths = (number + 16) % 32 - 16
    if abs(eighths) >= 15:
        return 0.0, 0, len(MIDDLES)
    low, high = np.searchsorted(MIDDLES, [8 * eighths - 4, 8 * eighths + 4])
    return float(MIDDLES[low]) if low < high else 0.0, int(low), int(high)


PARTINGS = [_parting(number) for number in range(32)]
middle_of = table([middle for middle, _, _ in PARTINGS])
lower_value = table([float(VALUES[low]) for _, low, _ in PARTINGS])
upper_value = table([float(VALUES[high]) for _, _, high in PARTINGS])
lower_index = table([float(low) for _, low, _ in PARTINGS])
upper_index = table([float(high) for _, _, high in PARTINGS])


@inlined
def value_by_table(t: Any) -> Any:
    """Return the level nearest to each lane, the upper one of two; all nearer to 0 than 140."""
    number = bits(t + EIGHTHS)
    return where(t < middle_of(number), lower_value(number), upper_value(number))


@inlined
def value_by_middles(t: Any) -> Any:
    """Return the same, of any lanes."""
    found = splat(LOWEST, LANES)
    for i in range(15):
        found = found + where(t < MIDDLES[i], splat(ZERO, LANES), GAPS[i])
    return found


@inlined
def index_by_table(t: Any) -> Any:
    """Return the number of that level, of any lanes: the highest for NaN."""
    t = most(least(t, HIGHEST), LOWEST)
    number = bits(t + EIGHTHS)
    return truncated(where(t < middle_of(number), lower_index(number), upper_index(number)))


@inlined
def index_by_middles(t: Any) -> Any:
    """Return the same."""
    found = splat(I32(0), 32)
    for i in range(15):
        found = found + where(t < MIDDLES[i], I32(0), splat(I32(1), 32))
    return found


value_of, index_of = (
    (value_by_table, index_by_table) if HAS_TABLES else (value_by_middles, index_by_middles)
)


@kernel
def search(x: Any, at: int, w: Any, scales: Any, to: int) -> None:
    """Fit x = scale * level to 16 sub-blocks of 32 at ``at``.

    Of the furthest weight a factor makes ``LOWEST - TRIES`` at most, but for rounding. Where that
    weight is all but zero a factor may be infinite; the scale is 0 then, whatever the levels.
    """
    peak, far = splat(ZERO, LANES), splat(ZERO, LANES)
    for i in range(BLOCK):
        v = load(x, at + LANES * i, LANES)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    scale, best = splat(ZERO, LANES), splat(ZERO, LANES)
    for step in range(-TRIES - 1, TRIES + 1):
        first = step < -TRIES
        factor = ONE / ((ZERO - peak) / LOWEST) if first else (F32(step) + LOWEST) / peak
        sum_qx, sum_q2 = splat(ZERO, LANES), splat(ZERO, LANES)
        for i in range(BLOCK):
            v = load(x, at + LANES * i, LANES)
            q = value_of(factor * v)
            weighted = load(w, LANES * i, LANES) * q
            sum_qx = sum_qx + weighted * v
            sum_q2 = sum_q2 + weighted * q
        found = where(sum_q2 > ZERO, sum_qx / sum_q2, ZERO)
        better = (sum_q2 > ZERO) & (sum_qx * sum_qx > best * sum_q2)
        if first:
            better = far == far
        scale = where(better, found, scale)
        best = where(better, found * sum_qx, best)
    store(scales, to, where(far < EPSILON, ZERO, scale))


@inlined
def inverse_of(d: Any) -> Any:
    """Return 1/d, and 0 for 0."""
    return where(d == ZERO, ZERO, ONE / d)


@kernel
def fit(x: Any, q: Any, size: int, planes: Any, w: Any, scales: Any) -> None:
    """Search the scales of the sub-blocks of 16 blocks of ``size`` weights."""
    variance = w[BLOCK * LANES :]
    for j in range(size // BLOCK):
        columns(x, BLOCK * j, size, BLOCK, planes, LANES * BLOCK * j)
    if q.size:
        sums_of_squares(planes, size, variance)
        store(variance, 0, load(variance, 0, LANES) * (F32(2) / F32(size)))
    for j in range(size // BLOCK):
        at = LANES * BLOCK * j
        if q.size:
            columns(q, BLOCK * j, size, BLOCK, w, 0)
            weigh(planes, at, BLOCK, variance, w)
        else:
            weigh_by_square(planes, at, BLOCK, w)
        search(planes, at, w, scales, LANES * j)


@kernel
def encode_blocks(x: Any, count: int, scales: Any, halves: Any, out: Any, at: int) -> None:
    """Fill ``count`` blocks of IQ4_NL."""
    d = load(scales, 0, LANES)
    store(halves, 0, to_halves(d))
    store(scales, 0, inverse_of(d))
    for k in range(count):
        put_half(out, at + 18 * k, halves[k])
        store_nibbles(index_of(load(x, BLOCK * k, 32) * scales[k]), out, at + 18 * k + 2)


@kernel
def encode_super_blocks(
    x: Any, count: int, scales: Any, stored: Any, halves: Any, out: Any, at: int
) -> None:
    """Fill ``count`` super-blocks of IQ4_XS."""
    far, peak = splat(ZERO, LANES), splat(ZERO, LANES)
    for j in range(8):
        v = load(scales, LANES * j, LANES)
        further = absolute(v) > far
        far, peak = where(further, absolute(v), far), where(further, v, peak)
    d = peak / F32(-32)  # -0 for 0, as in C
    store(halves, 0, to_halves(d))
    inverse = inverse_of(d)
    for j in range(8):
        sc = nearest_int(inverse * load(scales, LANES * j, LANES))
        sc = most(least(sc, I32(31)), I32(-32))
        store(stored, LANES * j, sc + I32(32))
        store(scales, LANES * j, inverse_of(d * to_float(sc)))
    for k in range(count):
        to, high = at + 136 * k, I32(0)
        put_half(out, to, halves[k])
        for j in range(8):
            high |= (stored[LANES * j + k] >> 4) << (2 * j)
        put_half(out, to + 2, high)
        for j in range(4):
            low = stored[LANES * 2 * j + k] & 15
            out[to + 4 + j] = U8(low | (stored[LANES * (2 * j + 1) + k] & 15) << 4)
        for j in range(8):
            v = load(x, 256 * k + BLOCK * j, 32)
            store_nibbles(index_of(v * scales[LANES * j + k]), out, to + 8 + 16 * j)


@driver
def encode(source: Any, q: Any, rows: Any, n: int, size: int, out: Any) -> Any:
    """Fill blocks of 32 weights (IQ4_NL) or 256 (IQ4_XS); return whether all are finite."""
    x, planes = np.empty(LANES * size, F32), np.empty(LANES * size, F32)
    important, w = np.empty(LANES * size if q.size else 0, F32), np.empty(33 * LANES, F32)
    scales, stored = np.empty(8 * LANES, F32), np.empty(8 * LANES, I32)
    halves = np.empty(LANES, I32)
    blocks = source.size // size
    for first in range(0, blocks, LANES):
        count = min(LANES, blocks - first)
        if not gather(source, first, count, size, x):
            return False
        if q.size:
            gather_importance(q, rows, n, first, count, size, important)
        fit(x, important, size, planes, w, scales)
        if size == BLOCK:
            encode_blocks(x, count, scales, halves, out, first * 18)
        else:
            encode_super_blocks(x, count, scales, stored, halves, out, first * 136)
    return True


@driver
def encode_iq4_nl(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of IQ4_NL from weights, and importance or none."""
    return encode(source, q, rows, n, 32, out)


@driver
def encode_iq4_xs(source: Any, q: Any, rows: Any, n: int, out: Any) -> Any:
    """Fill blocks of IQ4_XS from weights, and importance or none."""
    return encode(source, q, rows, n, 256, out)


LOOKS = True  # at what is not finite, itself
ENCODERS = {"IQ4_NL": encode_iq4_nl, "IQ4_XS": encode_iq4_xs}
