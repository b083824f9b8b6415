"""Q4_K, Q5_K and Q6_K: super-blocks of 256 weights whose sub-blocks' scales are quantized too.

From ``quantize_row_q[456]_K_ref`` and ``dequantize_row_q[456]_K`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats, nearest_int, scratch
from lfm2gguf.quants.search import (
    GROUP_MAX_EPS,
    ONE,
    ZERO,
    round_levels,
    scale_and_min,
    symmetric_scale,
)

# A super-block of Q4_K and Q5_K has 8 sub-blocks of 32 weights: w = (d * sc) * q - (dmin * m).
# qs[32 * i + j], 4 bits: weight j of sub-block 2i in the low nibble, of 2i + 1 in the high one.
# qh[j], fifth bits (Q5_K): bit i is weight j of sub-block i.
# scales, 6 bits each:     byte  0-3           4-7           8-11
#                       bits 0-5  sc[0-3]      m[0-3]        low 4 of sc[4-7], then of m[4-7]
#                       bits 6-7  top of sc[4-7]  top of m[4-7]
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
)
# A super-block of Q6_K has 16 sub-blocks of 16 weights: w = (d * sc) * (q - 32). For each half
# (128 weights), with j < 32 and weights j, j + 32, j + 64, j + 96 called a, b, c, e:
# ql[j] = low 4 of a | low 4 of c << 4, ql[j + 32] = low 4 of b | low 4 of e << 4,
# qh[j] = top 2 of a | of b << 2 | of c << 4 | of e << 6.
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])


def _columns(x: Floats, sub_block: int) -> list[Floats]:
    """Sub-blocks as columns, and four arrays of that shape to work in."""
    columns, *work = scratch(5, (sub_block, x.size // sub_block))
    np.copyto(columns, x.reshape(-1, sub_block).T)
    return [columns, *work]


def _some(columns: Floats, at: npt.NDArray[np.intp]) -> list[Floats]:
    """A few of the columns, and five arrays of that shape; the last column stands twice.

    A single one would be added pairwise, and ``columns[:, at]`` is not C-contiguous.
    """
    some = np.take(columns, np.append(at, at[-1:]), axis=1)
    return [some, *np.empty((5, *some.shape), np.float32)]


def _quantize_scales(values: Floats) -> tuple[Bytes, Floats]:
    """6-bit integers for the scales or minima (n, 8) of super-blocks, and their scale (n,)."""
    # to C's comparisons NaN is never the largest, and 0 is not -0
    largest = np.fmax.reduce(values, axis=1, initial=0) + ZERO
    ratio = np.where(largest > 0, np.float32(63) / largest, ZERO)
    bits = np.minimum(nearest_int(ratio[:, None] * values).astype(np.uint8), 63)
    return bits, largest / np.float32(63)


def _pack_scales(sc: Bytes, m: Bytes) -> Bytes:
    return np.concatenate(
        [
            sc[:, :4] | (sc[:, 4:] >> 4) << 6,
            m[:, :4] | (m[:, 4:] >> 4) << 6,
            (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        ],
        axis=1,
    )


def _unpack_scales(b: Bytes) -> tuple[Bytes, Bytes]:
    sc, m, low = b[:, :4], b[:, 4:8], b[:, 8:]
    return (
        np.concatenate([sc & 63, (low & 15) | (sc >> 6) << 4], axis=1),
        np.concatenate([m & 63, (low >> 4) | (m >> 6) << 4], axis=1),
    )


def _scaled(d: npt.NDArray[np.float16], sc: npt.NDArray[np.integer[Any]]) -> Floats:
    """The scale of each sub-block, as dequantization will see it."""
    scale: Floats = d.astype(np.float32)[:, None] * sc
    return scale


def _divided(t: Floats, d: Floats, low: int, high: int) -> Bytes:
    """The levels t / d, plus ``-low``; arbitrary where d is 0. Overwrites ``t``."""
    np.divide(t, np.where(d == 0, ONE, d), out=t)
    round_levels(t, low, high, t.min(), t.max())
    if low:
        t -= np.float32(low)
    return t.astype(np.uint8)


def _unscaled(columns: Floats, d: Floats, levels: Bytes) -> npt.NDArray[np.intp]:
    """The columns whose scale came out 0, those of zeros excepted: these get levels 0 here."""
    at = np.flatnonzero(d == 0)
    levels[:, at] = 0
    return at[columns[:, at].any(axis=0)]


@dataclass(frozen=True)
class EncodeWithMin:
    """The encoder of Q4_K and Q5_K: what these pass to ``make_qkx2_quants``, and the packing."""

    nmax: int
    rmin: float
    nstep: int

    def __call__(self, x: Floats, out: Blocks, weights: Floats | None) -> None:
        """Fill in the blocks ``out`` (n,) from the weights ``x`` (n, 256)."""
        columns, *work = _columns(x, 32)
        scale, low, ordinary = scale_and_min(columns, work, self.nmax, self.rmin, self.nstep)
        odd = np.flatnonzero(~ordinary)
        if len(odd):
            scale[odd], low[odd], _ = self._fit_carefully(columns, odd)
        sc, out["d"] = _quantize_scales(scale.reshape(-1, 8))
        m, out["dmin"] = _quantize_scales(low.reshape(-1, 8))
        out["scales"] = _pack_scales(sc, m)

        d, dmin = _scaled(out["d"], sc).reshape(-1), _scaled(out["dmin"], m).reshape(-1)
        t = np.add(columns, dmin, out=work[0])
        levels = _divided(t, d, 0, self.nmax)
        unscaled = _unscaled(columns, d, levels)
        if len(unscaled):  # there C leaves the levels that the search found
            levels[:, unscaled] = self._fit_carefully(columns, unscaled)[2]
        self._pack(levels, out)

    def _fit_carefully(
        self, columns: Floats, at: npt.NDArray[np.intp]
    ) -> tuple[Floats, Floats, Floats]:
        some, levels, *work = _some(columns, at)
        scale, low, _ = scale_and_min(some, work, self.nmax, self.rmin, self.nstep, levels)
        return scale[:-1], low[:-1], levels[:, :-1]

    def _pack(self, levels: Bytes, out: Blocks) -> None:
        """Store the levels (32, 8n): column j of a block is its sub-block j."""
        n = len(out)
        if self.nmax > 15:
            fifth = np.packbits((levels >> 4).reshape(-1), bitorder="little")
            out["qh"] = fifth.reshape(32, n).T
            levels &= 15
        pairs = levels.view("<u2")  # sub-block 2i in the low byte, 2i + 1 in the high one
        nibbles = (pairs | pairs >> 4).astype(np.uint8)
        out["qs"].reshape(n, 4, 32)[:] = nibbles.T.reshape(n, 4, 32)


def _encode_q6_k(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, *work = _columns(x, 16)
    scale = symmetric_scale(columns, work, 32).reshape(-1, 16)
    size = np.abs(scale)
    size[np.isnan(size)] = 0  # to C's comparisons NaN is never the largest
    largest = np.take_along_axis(scale, size.argmax(axis=1)[:, None], axis=1)
    iscale = np.float32(-128) / largest
    out["d"] = (ONE / iscale)[:, 0]
    out["scales"] = np.minimum(nearest_int(iscale * scale), 127)

    d = _scaled(out["d"], out["scales"]).reshape(-1)
    t = work[0]
    t[:] = columns
    levels = _divided(t, d, -32, 31)
    unscaled = _unscaled(columns, d, levels)
    if len(unscaled):  # there C leaves the levels that the search found
        some, found, *work = _some(columns, unscaled)
        symmetric_scale(some, work, 32, found)
        levels[:, unscaled] = found[:, :-1]
    _pack_q6_k(levels, out)
    out[size.max(axis=1) < GROUP_MAX_EPS] = np.zeros((), Q6_K)


def _pack_q6_k(levels: Bytes, out: Blocks) -> None:
    """Store the levels (16, 16n): column j of a block is its sub-block j."""
    n = len(out)
    halves = levels.view("<u8")  # the sub-blocks of half a block, low byte first: a a b b c c e e
    low = halves & 0x0F0F0F0F0F0F0F0F
    ql = (low | low >> 28).astype("<u4")  # a | c << 4 and b | e << 4
    out["ql"].reshape(n, 8, 16)[:] = ql.view(np.uint8).reshape(16, n, 8).transpose(1, 2, 0)
    top = halves >> 4 & 0x0303030303030303
    top |= top >> 28  # a | c << 4 and b | e << 4
    qh = (top | top >> 14).astype("<u2")  # and the second of them onto the first, << 2
    out["qh"].reshape(n, 4, 16)[:] = qh.view(np.uint8).reshape(16, n, 4).transpose(1, 2, 0)


def _decode_with_min(blocks: Blocks, out: Floats, q: Bytes) -> None:
    sc, m = _unpack_scales(blocks["scales"])
    y = out.reshape(-1, 8, 32)
    y[:] = q
    y *= _scaled(blocks["d"], sc)[..., None]
    y -= _scaled(blocks["dmin"], m)[..., None]


def _four_bits(blocks: Blocks) -> Bytes:
    """Low bits of the levels, (n, 8, 32)."""
    q = np.empty((len(blocks), 4, 2, 32), np.uint8)
    qs = blocks["qs"].reshape(-1, 4, 32)
    np.bitwise_and(qs, 15, out=q[:, :, 0])
    np.right_shift(qs, 4, out=q[:, :, 1])
    return q.reshape(-1, 8, 32)


def _decode_q4_k(blocks: Blocks, out: Floats) -> None:
    _decode_with_min(blocks, out, _four_bits(blocks))


def _decode_q5_k(blocks: Blocks, out: Floats) -> None:
    q = _four_bits(blocks)
    q |= np.unpackbits(blocks["qh"][:, None], axis=1, bitorder="little") << 4
    _decode_with_min(blocks, out, q)


def _decode_q6_k(blocks: Blocks, out: Floats) -> None:
    ql = blocks["ql"].reshape(-1, 2, 1, 64)
    low = (ql >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, 2, 4, 32)
    qh = blocks["qh"].reshape(-1, 2, 1, 32)
    top = qh >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = (low | top << 4).view(np.int8) - 32
    y = out.reshape(-1, 16, 16)
    y[:] = q.reshape(-1, 16, 16)
    y *= _scaled(blocks["d"], blocks["scales"])[..., None]


CODECS = (
    Codec(GGMLType.Q4_K, Q4_K, 32, EncodeWithMin(15, -1.0, 20), _decode_q4_k, ("d", "dmin")),
    Codec(GGMLType.Q5_K, Q5_K, 32, EncodeWithMin(31, -0.5, 15), _decode_q5_k, ("d", "dmin")),
    Codec(GGMLType.Q6_K, Q6_K, 16, _encode_q6_k, _decode_q6_k, ("d",)),
)
