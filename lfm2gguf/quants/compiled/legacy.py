"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, compiled: ``quantize_row_*_ref`` of ggml-quants.c.

llama.cpp commit 0c1e57098. A block of 32 weights is 32 lanes. How it lies in memory is drawn in
``quants/legacy.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.lanes import (
    absolute,
    bits,
    first_true,
    flags,
    from_bits,
    lane,
    largest,
    least,
    part,
    smallest,
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
    inlined,
    is_finite,
    kernel,
    put_half,
    read,
    to_half,
)

BLOCK = 32
U8 = np.uint8
ALMOST_HALF = np.nextafter(F32(0.5), F32(0))


@inlined
def usable_inverse(d: Any) -> Any:
    """Return 1/d, and 0 for 0 and where that or ``d`` is no number.

    There C casts infinity and NaN to an 8-bit integer, which is undefined, and 0 on x86-64.
    """
    inverse = ONE / d
    return inverse if is_finite(inverse) and is_finite(d) else ZERO


@inlined
def furthest(x: Any) -> Any:
    """Return the value furthest from zero, with its sign; the first of equals, and never -0."""
    high, low = largest(x), smallest(x)
    if high == -low:
        return lane(x, first_true(absolute(x) == high)) + ZERO
    return high if high > -low else low


@inlined
def store_nibbles(levels: Any, out: Any, at: int) -> None:
    """Store 32 levels of 4 bits: level j in the low nibble of byte j, j + 16 in the high one."""
    store(out, at, (part(levels, 0, 16) & U8(15)) | (part(levels, 16, 16) << U8(4)))


@inlined
def store_fifth_bits(levels: Any, out: Any, at: int) -> None:
    """Store bit 4 of 32 levels in 4 bytes."""
    bits_ = flags((levels & U8(16)) == U8(16))
    for i in range(4):
        out[at + i] = U8((bits_ >> (8 * i)) & 255)


@inlined
def encode_signed(source: Any, block: int, half: int, out: Any, at: int) -> Any:
    """Store the scale of a block; return its levels, 0 to 2 ``half`` - 1."""
    x = read(source, block * BLOCK)
    d = furthest(x) / F32(-half)
    inverse = usable_inverse(d)
    put_half(out, at, to_half(d))
    levels = least(truncated(x * inverse + F32(half + 0.5)), I32(2 * half - 1))
    return splat(U8(0), 32) if inverse == ZERO and d != ZERO else to_bytes(levels)


@inlined
def encode_with_min(source: Any, block: int, top: int, out: Any, at: int) -> Any:
    """Store the scale and the minimum of a block; return its levels, 0 to ``top``."""
    x = read(source, block * BLOCK)
    low = smallest(x)
    if low == ZERO:  # of which sign? C takes the first
        low = lane(x, first_true(x == ZERO))
    d = (largest(x) - low + ZERO) / F32(top)
    inverse = usable_inverse(d)
    put_half(out, at, to_half(d))
    put_half(out, at + 2, to_half(low))
    levels = least(truncated((x - low) * inverse + F32(0.5)), I32(top))
    return splat(U8(0), 32) if inverse == ZERO else to_bytes(levels)


@kernel
def encode_q4_0(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        at = block * 18
        store_nibbles(encode_signed(source, block, 8, out, at), out, at + 2)


@kernel
def encode_q4_1(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        at = block * 20
        store_nibbles(encode_with_min(source, block, 15, out, at), out, at + 4)


@kernel
def encode_q5_0(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        at = block * 22
        levels = encode_signed(source, block, 16, out, at)
        store_fifth_bits(levels, out, at + 2)
        store_nibbles(levels, out, at + 6)


@kernel
def encode_q5_1(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        at = block * 24
        levels = encode_with_min(source, block, 31, out, at)
        store_fifth_bits(levels, out, at + 4)
        store_nibbles(levels, out, at + 8)


@kernel
def encode_q8_0(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        x, at = read(source, block * BLOCK), block * 34
        d = largest(absolute(x)) / F32(127)
        put_half(out, at, to_half(d))
        scaled = absolute(x * usable_inverse(d)) + ALMOST_HALF  # roundf: half away from zero
        signed = from_bits(bits(scaled) | (bits(x) & I32(-0x80000000)))
        store(out, at + 2, to_bytes(truncated(signed)))


ENCODERS = {
    "Q4_0": encode_q4_0,
    "Q4_1": encode_q4_1,
    "Q5_0": encode_q5_0,
    "Q5_1": encode_q5_1,
    "Q8_0": encode_q8_0,
}
