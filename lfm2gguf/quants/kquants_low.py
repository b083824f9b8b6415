"""Q2_K and Q3_K: super-blocks of 256 weights in sub-blocks of 16.

From ``quantize_row_q[23]_K_ref``, ``quantize_row_q[23]_K_impl`` and
``dequantize_row_q[23]_K`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import (
    Blocks,
    Bytes,
    Codec,
    Floats,
    Weighting,
    mean,
    nearest_int,
    twice_mean,
)
from lfm2gguf.quants.descent import signed_scale
from lfm2gguf.quants.search import ONE, ZERO, Search, symmetric_scale, total
from lfm2gguf.quants.subblocks import (
    as_columns,
    divided,
    pack_pairs,
    scaled,
    some,
    unpack_pairs,
    unscaled,
)
from lfm2gguf.quants.withmin import EncodeWithMin, Fit, ScaleBits

# w = (d * sc) * q - (dmin * m): scales[j] has sc in its low nibble, m in its high one.
Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
# w = (d * (sc - 32)) * (q - 4): the third bit of weight 32 * i + j is bit i of hmask[j].
# scales, 6 bits each: low 4 of sc[j] and sc[j + 8] (j < 8) in the nibbles of byte j, and the
# top 2 of sc[j], sc[j + 4], sc[j + 8], sc[j + 12] (j < 4), low bits first, in byte 8 + j.
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])


def _absolute(x: Floats, w: Floats) -> None:
    np.abs(x, out=w)


def _pack_nibbles(sc: Bytes, m: Bytes) -> Bytes:
    return sc | m << np.uint8(4)


def _unpack_nibbles(b: Bytes) -> tuple[Bytes, Bytes]:
    return b & np.uint8(15), b >> np.uint8(4)


def _pack_q2_k(levels: Bytes, out: Blocks) -> None:
    pack_pairs(levels, out["qs"])


def _decode_q2_k(blocks: Blocks, out: Floats) -> None:
    sc, m = _unpack_nibbles(blocks["scales"])
    y = out.reshape(-1, 16, 16)
    y[:] = unpack_pairs(np.ascontiguousarray(blocks["qs"]))
    y *= scaled(blocks["d"], sc)[..., None]
    y -= scaled(blocks["dmin"], m)[..., None]


def _pack_scales(sc: Bytes) -> Bytes:
    """6 bits each, (n, 16), into twelve bytes."""
    top = sc >> 4
    high = top[:, :4] | top[:, 4:8] << 2 | top[:, 8:12] << 4 | top[:, 12:] << 6
    return np.concatenate([sc[:, :8] & 15 | sc[:, 8:] << 4, high], axis=1)


def _unpack_scales(b: Bytes) -> npt.NDArray[np.int8]:
    low = np.concatenate([b[:, :8] & 15, b[:, :8] >> 4], axis=1)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (b[:, None, 8:] >> shifts & 3).reshape(-1, 16)
    scales: npt.NDArray[np.int8] = (low | high << 4).view(np.int8) - np.int8(32)
    return scales


def _encode_q3_k(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w, *work = as_columns(x, 16)
    if weights is None:
        scale, _ = signed_scale(columns, 4)
        sc, out["d"] = _by_largest(scale.reshape(-1, 16))
    else:
        np.copyto(w, weights.reshape(-1, 16).T)
        scale = symmetric_scale(columns, w, work, 4)
        sc, out["d"] = _by_search(scale.reshape(-1, 16), total(w).reshape(-1, 16))
    out["scales"] = _pack_scales(sc)

    d = scaled(out["d"], _unpack_scales(out["scales"])).reshape(-1)
    t = work[0]
    t[:] = columns
    levels = divided(t, d, -4, 3)
    lost = unscaled(columns, d, levels)
    if len(lost):  # there C leaves the levels that the search found
        levels[:, lost] = _search_again(some(columns, lost), weights, some(w, lost))
    out["hmask"] = np.packbits(
        (levels > 3).T.reshape(-1, 8, 32), axis=1, bitorder="little"
    ).reshape(-1, 32)
    pack_pairs(levels & np.uint8(3), out["qs"])


def _search_again(x: Floats, weights: Floats | None, w: Floats) -> Bytes:
    if weights is None:
        return signed_scale(x, 4)[1]
    levels, *work = np.empty((4, *x.shape), np.float32)
    symmetric_scale(x, w, work, 4, levels)
    found: Bytes = levels.astype(np.uint8)
    return found


def _by_largest(scale: Floats) -> tuple[Bytes, Floats]:
    """6-bit integers for the scales (n, 16) of super-blocks, plus 32, and their scale (n,)."""
    size = np.abs(scale)
    size[np.isnan(size)] = 0  # to C's comparisons NaN is never the largest
    largest = np.take_along_axis(scale, size.argmax(axis=1)[:, None], axis=1)
    inverse = np.float32(-32) / largest
    bits = np.clip(nearest_int(inverse * scale).astype(np.int8), -32, 31) + np.int8(32)
    none = size.max(axis=1) == 0
    bits[none] = 0
    return bits.view(np.uint8), np.where(none, ZERO, (ONE / inverse)[:, 0])


def _by_search(scale: Floats, weights: Floats) -> tuple[Bytes, Floats]:
    columns, w = (np.ascontiguousarray(array.T) for array in (scale, weights))
    levels, *work = np.empty((4, *columns.shape), np.float32)
    d = symmetric_scale(columns, w, work, 32, levels, careful=True)
    return levels.T.astype(np.uint8), d


def _decode_q3_k(blocks: Blocks, out: Floats) -> None:
    third = np.unpackbits(
        np.ascontiguousarray(blocks["hmask"])[:, None], axis=1, bitorder="little"
    ).reshape(-1, 16, 16)
    low = unpack_pairs(np.ascontiguousarray(blocks["qs"]))
    y = out.reshape(-1, 16, 16)
    y[:] = (low | third << 2).view(np.int8) - np.int8(4)
    y *= scaled(blocks["d"], _unpack_scales(blocks["scales"]))[..., None]


CODECS = (
    Codec(
        GGMLType.Q2_K,
        Q2_K,
        16,
        EncodeWithMin(
            sub_block=16,
            top=15,
            plain=Fit(Search(3, -0.5, 0.1, 15, absolute=True), most=255),
            weighted=Fit(Search(3, -0.9, 0.05, 36), most=255),
            plain_weights=_absolute,
            bits=ScaleBits(_pack_nibbles, _unpack_nibbles),
            pack_levels=_pack_q2_k,
        ),
        _decode_q2_k,
        ("d", "dmin"),
        Weighting(mean),
        compiled="withmin",
    ),
    Codec(
        GGMLType.Q3_K,
        Q3_K,
        16,
        _encode_q3_k,
        _decode_q3_k,
        ("d",),
        Weighting(twice_mean),
        compiled="signed",
    ),
)
