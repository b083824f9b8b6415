"""What all compiled kernels share: how they are compiled, and ggml's conversions of numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.extending import overload

from lfm2gguf.quants.compiled.across import any_true
from lfm2gguf.quants.compiled.kept import Kept
from lfm2gguf.quants.compiled.lanes import absolute, bits, from_bits, least, load, most, where

# Bytes, so exact: no fast-math, division by zero as in C. ``nogil`` lets threads run side by side.
_COMMON = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def _compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return numba's decorator, with a cache of our own."""

    def decorate(function: Callable[..., Any]) -> Any:
        function.__qualname__ += _enclosed(function)
        dispatcher = numba.njit(**_COMMON, **options)(function)
        dispatcher._cache = Kept(function)
        return dispatcher

    return decorate


def _enclosed(function: Callable[..., Any]) -> str:
    """Return a label of what a function encloses, which makes it another one by name.

    numba tells machine code apart by qualified names, types of arguments, and a number that
    counts from 1 in each process. Of two functions that one factory made, one from the cache and
    one just compiled, all of these can be the same: then LLVM takes the one for the other.
    """
    contents = [cell.cell_contents for cell in function.__closure__ or ()]
    said = [c.py_func.__qualname__ if hasattr(c, "py_func") else repr(c) for c in contents]
    return "." + hashlib.sha256(" ".join(said).encode()).hexdigest()[:8] if said else ""


driver = _compiler()
# What allocates nothing need not count its references to arrays, which takes longer than the
# work of a small function does.
kernel = _compiler(_nrt=False)
inlined = _compiler(_nrt=False, forceinline=True)

F32, I32, U32 = np.float32, np.int32, np.uint32
ZERO, ONE, TENTH, INFINITY = F32(0), F32(1), F32(0.1), F32(np.inf)
EXPONENT = I32(0x7F800000)  # all of its bits are set in NaN and infinity
SCALE_UP, SCALE_DOWN = U32(0x77800000).view(F32), U32(0x08800000).view(F32)
MAGIC = F32(12582912.0)  # 1.5 * 2**23: a sum with it has the integer in the low mantissa bits


@inlined
def nearest_int(x: Any) -> Any:
    """Return ``nearest_int`` of ggml-quants.c, bit for bit, of lanes."""
    return (bits(x + MAGIC) & I32(0x7FFFFF)) - I32(0x400000)


@inlined
def nearest_int_of(x: Any) -> Any:
    """Return the same of one float32."""
    return (F32(x + MAGIC).view(I32) & I32(0x7FFFFF)) - I32(0x400000)


@inlined
def level(x: Any, low: Any, high: Any) -> Any:
    """Return ``clamp(nearest_int(x), low, high)`` of any lanes, as integers."""
    return most(least(nearest_int(x), high), low)


@inlined
def quick_level(x: Any, low: Any, high: Any) -> Any:
    """Return the same as float32, of lanes whose magnitude is below 2**22: in half the time.

    The bits are clamped: processors that add floats in few places compare integers in more.
    """
    lowest, highest = F32(low + MAGIC).view(I32), F32(high + MAGIC).view(I32)
    return from_bits(most(least(bits(x + MAGIC), highest), lowest)) - MAGIC


@kernel
def to_half(x: Any) -> Any:
    """Return the bits of float16 nearest to a float32, ties to even; NaN becomes 0x7E00.

    ``ggml_compute_fp32_to_fp16`` of ggml/src/ggml-impl.h, llama.cpp commit 0c1e57098.
    """
    stored = F32(x).view(U32)
    base = (abs(F32(x)) * SCALE_UP) * SCALE_DOWN
    twice = U32(stored + stored)
    bias = max(U32(twice & U32(0xFF000000)), U32(0x71000000))
    base = U32((bias >> U32(1)) + U32(0x07800000)).view(F32) + base
    rounded = F32(base).view(U32)
    magnitude = ((rounded >> U32(13)) & U32(0x7C00)) + (rounded & U32(0x0FFF))
    if twice > U32(0xFF000000):
        magnitude = U32(0x7E00)
    return np.uint16(((stored >> U32(16)) & U32(0x8000)) | magnitude)


@kernel
def from_half(half: Any) -> Any:
    """Return the float32 that these bits of float16 are (``ggml_compute_fp16_to_fp32``)."""
    stored = U32(U32(half) << U32(16))
    twice = U32(stored + stored)
    normal = U32((twice >> U32(4)) + U32(0x70000000)).view(F32) * U32(0x07800000).view(F32)
    denormal = U32((twice >> U32(17)) | U32(0x3F000000)).view(F32) - F32(0.5)
    value = F32(denormal if twice < U32(1 << 27) else normal).view(U32)
    return U32((stored & U32(0x80000000)) | value).view(F32)


@inlined
def from_halves(halves: Any) -> Any:
    """Return the same of lanes of integers, whose upper bits do not matter."""
    sign = (halves & I32(0x8000)) << I32(16)
    low = halves & I32(0x7FFF)
    normal = from_bits((low << I32(13)) + I32(0x70000000)) * U32(0x07800000).view(F32)
    denormal = from_bits(low | I32(0x3F000000)) - F32(0.5)
    return from_bits(bits(where(low < I32(1 << 10), denormal, normal)) | sign)


@inlined
def to_halves(x: Any) -> Any:
    """Return what :func:`to_half` does, of lanes, as integers."""
    stored = bits(x)
    size = stored & I32(0x7FFFFFFF)
    base = (absolute(x) * SCALE_UP) * SCALE_DOWN
    bias = most(size & EXPONENT, I32(0x38800000)) + I32(0x07800000)
    rounded = bits(from_bits(bias) + base)
    magnitude = ((rounded >> I32(13)) & I32(0x7C00)) + (rounded & I32(0x0FFF))
    return ((stored >> I32(16)) & I32(0x8000)) | where(size > EXPONENT, I32(0x7E00), magnitude)


@inlined
def put_half(out: Any, at: int, half: Any) -> None:
    """Store the two bytes of a float16."""
    out[at], out[at + 1] = np.uint8(half & 255), np.uint8(half >> 8)


@inlined
def get_half(data: Any, at: int) -> Any:
    """Return the float32 that the two bytes of a float16 are."""
    return from_half(data[at] | data[at + 1] << 8)


def read(source: Any, at: int) -> Any:
    """Return 32 weights from ``at`` on as float32, in compiled code only.

    The source is float32, bfloat16 as its bits in uint16, or float16 as its bits in int16.
    """
    raise NotImplementedError


@overload(read, strict=False)
def _read(source: Any, at: Any) -> Any:
    return READERS[source.dtype]


READERS = {
    types.float32: lambda source, at: load(source, at, 32),
    types.uint16: lambda source, at: from_bits(load(source, at, 32) << I32(16)),
    types.int16: lambda source, at: from_halves(load(source, at, 32)),
}


@kernel
def finite(source: Any, start: int, stop: int) -> Any:
    """Return whether none of these weights, a multiple of 32, is NaN or infinite."""
    for i in range(start, stop, 32):
        if any_true((bits(read(source, i)) & EXPONENT) == EXPONENT):
            return False
    return True


@kernel
def all_finite(source: Any) -> Any:
    """Return whether none of all the weights, a multiple of 32, is NaN or infinite."""
    return finite(source, 0, source.size)
