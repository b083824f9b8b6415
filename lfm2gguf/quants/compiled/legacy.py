"""Q4_0 and Q8_0, compiled: ``quantize_row_q4_0_ref`` and ``_q8_0_ref`` of ggml-quants.c.

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


@kernel
def encode_q4_0(source: Any, out: Any) -> None:
    """Fill blocks from weights."""
    for block in range(source.size // BLOCK):
        x, at = read(source, block * BLOCK), block * 18
        d = furthest(x) / F32(-8)
        inverse = usable_inverse(d)
        put_half(out, at, to_half(d))
        if inverse == ZERO and d != ZERO:
            store(out, at + 2, splat(U8(0), 16))
        else:
            levels = least(truncated(x * inverse + F32(8.5)), I32(15))
            store_nibbles(to_bytes(levels), out, at + 2)


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


ENCODERS = {"Q4_0": encode_q4_0, "Q8_0": encode_q8_0}
