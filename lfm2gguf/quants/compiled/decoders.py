"""From ggml's bytes to weights, compiled: ``dequantize_row_*`` of ggml/src/ggml-quants.c.

llama.cpp commit 0c1e57098. How the blocks lie in memory is drawn in ``quants/legacy.py``,
``quants/kquants.py``, ``quants/kquants_low.py`` and ``quants/nonlinear.py``. All read bytes and
fill float32, 32 weights at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.across import joined
from lfm2gguf.quants.compiled.lanes import load, splat, store, to_float, to_ints, where
from lfm2gguf.quants.compiled.numbers import F32, I32, driver, get_half, inlined
from lfm2gguf.quants.compiled.point_decoders import DECODERS as OF_POINTS
from lfm2gguf.quants.compiled.withmin import pair, scale_of
from lfm2gguf.quants.nonlinear import VALUES

U8 = np.uint8
BIT_OF_BYTE = np.tile(np.left_shift(1, np.arange(8)).astype(np.uint8), 4)
CODES = tuple(F32(x) for x in VALUES)


@inlined
def nibbles(data: Any, at: int) -> Any:
    """Return 32 levels of 4 bits: the low nibbles of 16 bytes, then their high ones."""
    packed = load(data, at, 16)
    return joined(packed & U8(15), packed >> U8(4))


@inlined
def bit_of(packed: Any, i: int) -> Any:
    """Return bit ``i`` of bytes."""
    return (packed >> U8(i)) & U8(1)


@inlined
def fifth_bits(data: Any, at: int) -> Any:
    """Return 16 where the bit of a level is set among 32 in four bytes."""
    low, high = (
        joined(splat(data[at], 8), splat(data[at + 1], 8)),
        joined(splat(data[at + 2], 8), splat(data[at + 3], 8)),
    )
    bits = joined(low, high) & load(BIT_OF_BYTE, 0, 32)
    return where(bits == U8(0), splat(U8(0), 32), splat(U8(16), 32))


def _make_blocks(size: int, five: bool, signed: int, minimum: bool) -> Any:
    """Decode Q4_0 to Q5_1: ``signed`` is what is taken off a level."""

    @driver
    def decode(data: Any, out: Any) -> None:
        at_levels = (4 if minimum else 2) + (4 if five else 0)
        for block in range(out.size // 32):
            at = block * size
            d, levels = get_half(data, at), nibbles(data, at + at_levels)
            if five:
                levels = levels | fifth_bits(data, at + at_levels - 4)
            if minimum:
                y = to_float(to_ints(levels)) * d + get_half(data, at + 2)
            else:
                y = to_float(to_ints(levels) - I32(signed)) * d
            store(out, 32 * block, y)

    return decode


@driver
def decode_q8_0(data: Any, out: Any) -> None:
    """Read blocks of Q8_0."""
    for block in range(out.size // 32):
        at = block * 34
        levels = (to_ints(load(data, at + 2, 32)) ^ I32(128)) - I32(128)
        store(out, 32 * block, to_float(levels) * get_half(data, at))


def _make_with_min(size: int, five: bool) -> Any:
    """Decode Q4_K or Q5_K."""

    @driver
    def decode(data: Any, out: Any) -> None:
        for block in range(out.size // 256):
            at = block * size
            d, dmin = get_half(data, at), get_half(data, at + 2)
            fifth = load(data, at + 16, 32) if five else splat(U8(0), 32)
            for i in range(4):
                packed = load(data, at + (48 if five else 16) + 32 * i, 32)
                for k in range(2):
                    levels = packed >> U8(4) if k else packed & U8(15)
                    if five:
                        levels = levels | (bit_of(fifth, 2 * i + k) << U8(4))
                    j = 2 * i + k
                    scale = d * F32(scale_of(data, at + 4, j))
                    low = dmin * F32(scale_of(data, at + 4, 8 + j))
                    store(out, 256 * block + 32 * j, scale * to_float(to_ints(levels)) - low)

    return decode


@driver
def decode_q2_k(data: Any, out: Any) -> None:
    """Read blocks of Q2_K."""
    scales, lows = np.empty(16, F32), np.empty(16, F32)
    for block in range(out.size // 256):
        at = block * 84
        d, dmin = get_half(data, at + 80), get_half(data, at + 82)
        for j in range(16):
            scales[j], lows[j] = d * F32(data[at + j] & 15), dmin * F32(data[at + j] >> 4)
        for i in range(8):
            packed = load(data, at + 16 + 32 * (i // 4), 32)
            levels = to_float(to_ints((packed >> U8(2 * (i % 4))) & U8(3)))
            a, b = 2 * i, 2 * i + 1
            store(out, 256 * block + 32 * i, pair(scales, a, b) * levels - pair(lows, a, b))


@driver
def decode_q3_k(data: Any, out: Any) -> None:
    """Read blocks of Q3_K."""
    scales = np.empty(16, F32)
    for block in range(out.size // 256):
        at = block * 110
        d, third = get_half(data, at + 108), load(data, at, 32)
        for j in range(16):
            low = (I32(data[at + 96 + j % 8]) >> I32(4 * (j // 8))) & I32(15)
            top = (I32(data[at + 104 + j % 4]) >> I32(2 * (j // 4))) & I32(3)
            scales[j] = d * F32((low | (top << I32(4))) - I32(32))
        for i in range(8):
            packed = load(data, at + 32 + 32 * (i // 4), 32)
            levels = (packed >> U8(2 * (i % 4))) & U8(3) | (bit_of(third, i) << U8(2))
            y = to_float(to_ints(levels) - I32(4))
            store(out, 256 * block + 32 * i, pair(scales, 2 * i, 2 * i + 1) * y)


@driver
def decode_q6_k(data: Any, out: Any) -> None:
    """Read blocks of Q6_K."""
    scales = np.empty(16, F32)
    for block in range(out.size // 256):
        at = block * 210
        d = get_half(data, at + 208)
        for j in range(16):
            scales[j] = d * F32(np.int8(data[at + 192 + j]))
        for i in range(8):
            half, quarter = i // 4, i % 4
            packed = load(data, at + 64 * half + 32 * (quarter % 2), 32)
            low = packed >> U8(4) if quarter > 1 else packed & U8(15)
            top = (load(data, at + 128 + 32 * half, 32) >> U8(2 * quarter)) & U8(3)
            y = to_float(to_ints(low | (top << U8(4))) - I32(32))
            store(out, 256 * block + 32 * i, pair(scales, 2 * i, 2 * i + 1) * y)


@inlined
def code_of(levels: Any) -> Any:
    """Return the codes of IQ4_NL that 32 bytes name."""
    found = splat(CODES[0], 32)
    for i in range(1, 16):
        found = where(levels == U8(i), CODES[i], found)
    return found


@driver
def decode_iq4_nl(data: Any, out: Any) -> None:
    """Read blocks of IQ4_NL."""
    for block in range(out.size // 32):
        at = block * 18
        store(out, 32 * block, get_half(data, at) * code_of(nibbles(data, at + 2)))


@driver
def decode_iq4_xs(data: Any, out: Any) -> None:
    """Read blocks of IQ4_XS."""
    for block in range(out.size // 256):
        at = block * 136
        d, high = get_half(data, at), I32(data[at + 2]) | I32(data[at + 3]) << I32(8)
        for j in range(8):
            low = (I32(data[at + 4 + j // 2]) >> I32(4 * (j % 2))) & I32(15)
            sc = low | ((high >> I32(2 * j)) & I32(3)) << I32(4)
            scale = d * F32(sc - I32(32))
            store(out, 256 * block + 32 * j, scale * code_of(nibbles(data, at + 8 + 16 * j)))


DECODERS = {
    "Q4_0": _make_blocks(18, five=False, signed=8, minimum=False),
    "Q4_1": _make_blocks(20, five=False, signed=0, minimum=True),
    "Q5_0": _make_blocks(22, five=True, signed=16, minimum=False),
    "Q5_1": _make_blocks(24, five=True, signed=0, minimum=True),
    "Q8_0": decode_q8_0,
    "Q2_K": decode_q2_k,
    "Q3_K": decode_q3_k,
    "Q4_K": _make_with_min(144, five=False),
    "Q5_K": _make_with_min(176, five=True),
    "Q6_K": decode_q6_k,
    "IQ4_NL": decode_iq4_nl,
    "IQ4_XS": decode_iq4_xs,
    **OF_POINTS,
}
