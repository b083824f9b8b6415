"""From the bytes of the IQ1, IQ2 and IQ3 types to weights, compiled.

``dequantize_row_iq[123]_*`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098. How the
blocks lie in memory is drawn in ``quants/iq1.py``, ``quants/iq2.py`` and ``quants/iq3.py``.
``values`` are what the levels of a grid's points stand for, point after point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants import grids, iq1, iq2, iq3
from lfm2gguf.quants.compiled.across import joined
from lfm2gguf.quants.compiled.lanes import bits, from_bits, load, splat, store
from lfm2gguf.quants.compiled.numbers import F32, I32, ZERO, driver, get_half, inlined
from lfm2gguf.quants.compiled.withmin import SUPER
from lfm2gguf.quants.grids import Grid

SEVEN = np.arange(128, dtype=np.uint8)
EIGHT = iq2.eighth_sign(SEVEN)  # the signs of eight weights from seven of them
PLACES = np.arange(8, dtype=np.int32)
HALF, QUARTER, DELTA = F32(0.5), F32(0.25), iq1.DELTA


@inlined
def word(data: Any, at: int) -> Any:
    """Return the integer that two bytes are."""
    return I32(data[at]) | I32(data[at + 1]) << I32(8)


@inlined
def put_signed(y: Any, signs: Any, out: Any, at: int) -> None:
    """Store eight weights, negative where the bit is set."""
    minus = ((splat(I32(signs), 8) >> load(PLACES, 0, 8)) & I32(1)) << I32(31)
    store(out, at, from_bits(bits(y) ^ minus))


@inlined
def nibble(data: Any, at: int, j: int) -> Any:
    """Return nibble ``j`` of bytes as float32, the low one of each first."""
    return F32((I32(data[at + j // 2]) >> I32(4 * (j % 2))) & I32(15))


@driver
def decode_iq2_xxs(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ2_XXS."""
    for block in range(out.size // SUPER):
        d = get_half(data, 66 * block)
        for j in range(8):
            at = 66 * block + 2 + 8 * j
            rest = word(data, at + 4) | word(data, at + 6) << I32(16)
            scale = d * (HALF + F32((rest >> I32(28)) & I32(15))) * QUARTER
            for k in range(4):
                y = load(values, 8 * I32(data[at + k]), 8) * scale
                signs = EIGHT[(rest >> I32(7 * k)) & I32(127)]
                put_signed(y, signs, out, SUPER * block + 32 * j + 8 * k)


@driver
def decode_iq2_xs(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ2_XS."""
    for block in range(out.size // SUPER):
        at = 74 * block
        d = get_half(data, at)
        for g in range(32):
            scale = d * (HALF + nibble(data, at + 66, g // 2)) * QUARTER
            q = word(data, at + 2 + 2 * g)
            y = load(values, 8 * (q & I32(511)), 8) * scale
            put_signed(y, EIGHT[q >> I32(9)], out, SUPER * block + 8 * g)


@driver
def decode_iq2_s(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ2_S."""
    for block in range(out.size // SUPER):
        at = 82 * block
        d = get_half(data, at)
        for g in range(32):
            scale = d * (HALF + nibble(data, at + 74, g // 2)) * QUARTER
            top = (I32(data[at + 66 + g // 4]) >> I32(2 * (g % 4))) & I32(3)
            y = load(values, 8 * (I32(data[at + 2 + g]) | top << I32(8)), 8) * scale
            put_signed(y, data[at + 34 + g], out, SUPER * block + 8 * g)


@inlined
def two_groups(values: Any, a: Any, b: Any) -> Any:
    """Return what two points of four levels stand for."""
    return joined(load(values, 4 * a, 4), load(values, 4 * b, 4))


@driver
def decode_iq3_xxs(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ3_XXS."""
    for block in range(out.size // SUPER):
        d = get_half(data, 98 * block)
        for j in range(8):
            qs, at = 98 * block + 2 + 8 * j, 98 * block + 66 + 4 * j
            rest = word(data, at) | word(data, at + 2) << I32(16)
            scale = d * (HALF + F32((rest >> I32(28)) & I32(15))) * HALF
            for k in range(4):
                y = two_groups(values, I32(data[qs + 2 * k]), I32(data[qs + 2 * k + 1])) * scale
                signs = EIGHT[(rest >> I32(7 * k)) & I32(127)]
                put_signed(y, signs, out, SUPER * block + 32 * j + 8 * k)


@driver
def decode_iq3_s(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ3_S."""
    for block in range(out.size // SUPER):
        at = 110 * block
        d = get_half(data, at)
        for g in range(32):
            sc = nibble(data, at + 106, g // 4)
            ninth = I32(data[at + 66 + g // 4]) >> I32(2 * (g % 4))
            a = I32(data[at + 2 + 2 * g]) | (ninth & I32(1)) << I32(8)
            b = I32(data[at + 3 + 2 * g]) | (ninth & I32(2)) << I32(7)
            y = two_groups(values, a, b) * (d * (sc + sc + F32(1)))
            put_signed(y, data[at + 74 + g], out, SUPER * block + 8 * g)


@driver
def decode_iq1_s(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ1_S."""
    for block in range(out.size // SUPER):
        at = 50 * block
        d = get_half(data, at)
        for j in range(8):
            high = word(data, at + 34 + 2 * j)
            scale = d * F32(2 * ((high >> I32(12)) & I32(7)) + 1)
            delta = ZERO - DELTA if high & I32(0x8000) else DELTA
            for k in range(4):
                point = I32(data[at + 2 + 4 * j + k]) | ((high >> I32(3 * k)) & I32(7)) << I32(8)
                y = (load(values, 8 * point, 8) + delta) * scale
                store(out, SUPER * block + 32 * j + 8 * k, y)


@driver
def decode_iq1_m(data: Any, out: Any, values: Any) -> None:
    """Read blocks of IQ1_M."""
    half = np.empty(2, np.uint8)
    for block in range(out.size // SUPER):
        at = 56 * block
        for i in range(2):
            low, high = data[at + 49 + 4 * i], data[at + 51 + 4 * i]
            half[i] = low >> 4 | (high >> 4) << 4
        d = get_half(half, 0)
        for g in range(32):
            code = (I32(data[at + 32 + g // 2]) >> I32(4 * (g % 2))) & I32(15)
            point = I32(data[at + g]) | (code & I32(7)) << I32(8)
            delta = ZERO - DELTA if code & I32(8) else DELTA
            j = g // 2
            sc = (word(data, at + 48 + 2 * (j // 4)) >> I32(3 * (j % 4))) & I32(7)
            y = (load(values, 8 * point, 8) + delta) * (d * F32(2 * sc + 1))
            store(out, SUPER * block + 8 * g, y)


@lru_cache(maxsize=8)
def _values(grid: Grid, values: tuple[float, ...]) -> npt.NDArray[np.float32]:
    levels = grid.levels.astype(np.intp).T
    return np.array(values, np.float32)[levels].reshape(-1)


def _decoder(
    kernel: Any, grid: Grid, values: npt.NDArray[np.float32] | tuple[float, ...]
) -> Callable[..., None]:
    key = tuple(float(value) for value in values)
    return lambda data, out: kernel(data, out, _values(grid, key))


THIRDS = (-1.0, 0.0, 1.0)
DECODERS = {
    "IQ2_XXS": _decoder(decode_iq2_xxs, grids.IQ2_XXS, iq2.VALUES),
    "IQ2_XS": _decoder(decode_iq2_xs, grids.IQ2_XS, iq2.VALUES),
    "IQ2_S": _decoder(decode_iq2_s, grids.IQ2_S, iq2.VALUES),
    "IQ3_XXS": _decoder(decode_iq3_xxs, grids.IQ3_XXS, iq3.VALUES_XXS),
    "IQ3_S": _decoder(decode_iq3_s, grids.IQ3_S, iq3.VALUES_S),
    "IQ1_S": _decoder(decode_iq1_s, grids.IQ1, THIRDS),
    "IQ1_M": _decoder(decode_iq1_m, grids.IQ1, THIRDS),
}
