"""Q4_K, Q5_K and Q6_K: super-blocks of 256 weights whose sub-blocks' scales are quantized too.

From ``quantize_row_q[456]_K_ref``, ``quantize_row_q[456]_K_impl`` and
``dequantize_row_q[456]_K`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import (
    Blocks,
    Bytes,
    Codec,
    Floats,
    Weighting,
    nearest_int,
    twice_mean,
)
from lfm2gguf.quants.search import GROUP_MAX_EPS, ONE, Search, symmetric_scale, total
from lfm2gguf.quants.subblocks import as_columns, divided, scaled, some, unscaled
from lfm2gguf.quants.withmin import EncodeWithMin, Fit, ScaleBits

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


def weights_of_32(x: Floats, w: Floats) -> None:
    """Weigh errors as Q4_K and Q5_K do without importance: sqrt(mean x²) + abs(x), into ``w``."""
    np.multiply(x, x, out=w)
    root = np.sqrt(total(w) / np.float32(32))
    np.abs(x, out=w)
    w += root


def _pack_levels(levels: Bytes, out: Blocks) -> None:
    """Store the levels (32, 8n): column j of a block is its sub-block j."""
    n = len(out)
    if "qh" in (out.dtype.names or ()):
        fifth = np.packbits((levels >> 4).reshape(-1), bitorder="little")
        out["qh"] = fifth.reshape(32, n).T
        levels &= 15
    pairs = levels.view("<u2")  # sub-block 2i in the low byte, 2i + 1 in the high one
    nibbles = (pairs | pairs >> 4).astype(np.uint8)
    out["qs"].reshape(n, 4, 32)[:] = nibbles.T.reshape(n, 4, 32)


def _encode_q6_k(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w, *work = as_columns(x, 16)
    if weights is None:
        np.multiply(columns, columns, out=w)
    else:
        np.copyto(w, weights.reshape(-1, 16).T)
    scale = symmetric_scale(columns, w, work, 32).reshape(-1, 16)
    size = np.abs(scale)
    size[np.isnan(size)] = 0  # to C's comparisons NaN is never the largest
    largest = np.take_along_axis(scale, size.argmax(axis=1)[:, None], axis=1)
    iscale = np.float32(-128) / largest
    out["d"] = (ONE / iscale)[:, 0]
    out["scales"] = np.minimum(nearest_int(iscale * scale), 127)

    d = scaled(out["d"], out["scales"]).reshape(-1)
    t = work[0]
    t[:] = columns
    levels = divided(t, d, -32, 31)
    lost = unscaled(columns, d, levels)
    if len(lost):  # there C leaves the levels that the search found
        found, *work = np.empty((4, 16, len(lost)), np.float32)
        symmetric_scale(some(columns, lost), some(w, lost), work, 32, found)
        levels[:, lost] = found
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
    y *= scaled(blocks["d"], sc)[..., None]
    y -= scaled(blocks["dmin"], m)[..., None]


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
    y *= scaled(blocks["d"], blocks["scales"])[..., None]


CODECS = (
    Codec(
        GGMLType.Q4_K,
        Q4_K,
        32,
        EncodeWithMin(
            sub_block=32,
            top=63,
            plain=Fit(Search(15, -1.0, 0.1, 20), most=63),
            weighted=Fit(Search(15, -0.9, 0.05, 36), most=255),
            plain_weights=weights_of_32,
            bits=ScaleBits(_pack_scales, _unpack_scales),
            pack_levels=_pack_levels,
        ),
        _decode_q4_k,
        ("d", "dmin"),
        Weighting(twice_mean),
        compiled="withmin",
    ),
    Codec(
        GGMLType.Q5_K,
        Q5_K,
        32,
        EncodeWithMin(
            sub_block=32,
            top=63,
            plain=Fit(Search(31, -0.5, 0.1, 15), most=63),
            weighted=Fit(Search(31, -0.9, 0.05, 36), most=63),
            plain_weights=weights_of_32,
            bits=ScaleBits(_pack_scales, _unpack_scales),
            pack_levels=_pack_levels,
        ),
        _decode_q5_k,
        ("d", "dmin"),
        Weighting(twice_mean),
        compiled="withmin",
    ),
    Codec(
        GGMLType.Q6_K,
        Q6_K,
        16,
        _encode_q6_k,
        _decode_q6_k,
        ("d",),
        Weighting(None),
        compiled="signed",
    ),
)
