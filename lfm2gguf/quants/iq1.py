"""IQ1_S and IQ1_M: groups of eight levels -1, 0, 1 from a grid, all moved by an eighth.

From ``quantize_row_iq1_*_impl`` and ``dequantize_row_iq1_*`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098. Equal weights are sorted stably, as qsort of glibc does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import grids
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats, Weighting, twice_mean
from lfm2gguf.quants.grids import Indices, too_large
from lfm2gguf.quants.lattice import by_blocks, scale_bits
from lfm2gguf.quants.search import ONE, total
from lfm2gguf.quants.splits import Integers, Split, best_split_m, best_split_s
from lfm2gguf.quants.subblocks import as_columns

# w = d * (2 * sc + 1) * (level + delta): the low byte of each point in qs, for each 32 weights
# the top 3 bits of four points in qh, then sc, 3 bits, and whether delta is -1/8, not 1/8.
IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
# The same with sc for each 16 weights: qh has a nibble for each point, its top 3 bits and delta.
# scales: four numbers of four sc, 3 bits each, with a nibble of d on top.
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])

DELTA = np.float32(0.125)
FUDGE_S, FUDGE_M = np.float32(1.125), np.float32(1.1125)
# What levels stand for: with delta, and with -delta.
VALUES = np.array([-1, 0, 1], np.float32) + DELTA * np.array([[1], [-1]], np.float32)
NIBBLES = np.arange(12, -1, -4, dtype=np.uint16)


def _points(
    levels: Bytes, minus: Integers, x: Floats, w: Floats, scale: Floats
) -> tuple[Indices, Any]:
    """The points for groups of levels (k, 8, n), the signs of whose deltas are (k, n).

    Also, which columns had groups that were none.
    """
    grid = grids.IQ1
    codes = grid.codes(levels.astype(np.float32))
    points = grid.index[codes].astype(np.intp)
    off = points < 0
    for sign in (0, 1):
        k, n = np.nonzero(off & (minus == sign))
        if len(k):
            own, weights = (
                np.ascontiguousarray(array.reshape(levels.shape)[k, :, n].T) for array in (x, w)
            )
            points[k, n] = grid.nearest(codes[k, n], own, weights, scale[n], VALUES[sign])
    return points, off.any(axis=0)


def _values(points: Indices, minus: Integers) -> Floats:
    """What the levels of points (k, n) stand for, as columns (8k, n)."""
    levels = grids.IQ1.levels.astype(np.intp)[:, points]  # (8, k, n)
    values: Floats = VALUES[minus, levels].transpose(1, 0, 2)
    return np.ascontiguousarray(values).reshape(8 * len(points), points.shape[1])


def _fit(x: Floats, w: Floats, split: Split, least: float) -> tuple[Floats, Indices, Integers]:
    """Scale, points (k, n) and signs of deltas (k, n) for the columns of ``x``."""
    empty = (np.abs(x).max(axis=0) < np.float32(least)) | split.none
    scale, levels, minus = split.scale, split.levels, split.minus
    flipped = scale < 0
    scale = np.where(flipped, -scale, scale)
    levels = np.where(flipped, 2 - levels, levels).astype(np.uint8)
    minus = np.where(flipped, 1 - minus, minus)
    levels[:, empty], minus[:, empty], scale[empty] = 1, 0, 0
    groups = levels.reshape(-1, 8, x.shape[1])
    of_groups = np.broadcast_to(minus, (len(groups), x.shape[1]))
    points, off = _points(groups, of_groups, x, w, scale)
    again = np.flatnonzero(off & ~empty)
    q = _values(points[:, again], of_groups[:, again])
    wq = w[:, again] * q
    sum_qx, sum_q2 = total(wq * x[:, again]), total(wq * q)
    fits = (sum_qx > 0) & (sum_q2 > 0)
    scale[again] = np.where(fits, sum_qx / sum_q2, scale[again])
    if np.isnan(scale).any():
        raise too_large()
    points[:, empty] = 0
    return scale, points, of_groups


def _columns(x: Floats, weights: Floats | None, height: int) -> tuple[Floats, Floats]:
    columns, w, *_ = as_columns(x, height)
    if weights is None:
        np.multiply(columns, columns, out=w)
    else:
        np.copyto(w, weights.reshape(-1, height).T)
    return columns, w


def _encode_iq1_s(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w = _columns(x, weights, 32)
    scale, points, minus = _fit(columns, w, best_split_s(columns, w, VALUES), 1e-12)
    bits, d = scale_bits(scale.reshape(-1, 8), 15, 7)
    out["d"] = d * FUDGE_S
    out["qs"] = by_blocks(points & 255, len(out))
    top = (points >> 8).astype(np.uint16).T << np.arange(0, 12, 3, dtype=np.uint16)
    out["qh"] = np.bitwise_or.reduce(top, axis=1).reshape(-1, 8)
    sc = bits | minus[0].reshape(-1, 8).astype(np.uint8) << np.uint8(3)
    sc[d == 0] = 0
    out["qh"] |= sc.astype(np.uint16) << np.uint16(12)


def _encode_iq1_m(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w = _columns(x, weights, 16)
    scale, points, minus = _fit(columns, w, best_split_m(columns, w), 1e-7)
    sc, d = scale_bits(scale.reshape(-1, 16), 15, 7)
    q = _values(points, minus) * (2 * sc.astype(np.float32) + ONE).reshape(-1)
    wq = w * q
    sum_qx, sum_q2 = (_of_blocks(terms, len(out)) for terms in (wq * columns, wq * q))
    d = np.where(sum_q2 > 0, sum_qx / sum_q2, d)
    nothing = scale.reshape(-1, 16).max(axis=1) == 0

    out["qs"] = by_blocks(points & 255, len(out))
    nibbles = (points >> 8).astype(np.uint8)
    nibbles |= np.where(nothing.repeat(16), 0, minus).astype(np.uint8) << np.uint8(3)
    out["qh"] = by_blocks(nibbles[:1] | nibbles[1:] << 4, len(out))
    shifted = sc.reshape(-1, 4, 4).astype(np.uint16) << np.arange(0, 12, 3, dtype=np.uint16)
    half = (d * FUDGE_M).astype(np.float16).view(np.uint16)[:, None]
    out["scales"] = np.bitwise_or.reduce(shifted, axis=2) | (half << NIBBLES & 0xF000)
    out["scales"][nothing] = 0


def _of_blocks(terms: Floats, n: int) -> Floats:
    """The sums of blocks, number after number, of terms by sub-blocks (16, 16n)."""
    return total(np.ascontiguousarray(terms.T.reshape(n, -1).T))


def _d_of_iq1_m(blocks: Blocks) -> npt.NDArray[np.float16]:
    parts = blocks["scales"] >> 12 << np.arange(0, 16, 4, dtype=np.uint16)
    half: npt.NDArray[np.float16] = np.bitwise_or.reduce(parts, axis=1).view(np.float16)
    return half


def _decode(points: Indices, delta: Floats, scale: Floats, out: Floats) -> None:
    """Fill in weights (n, 256) from points and deltas (n, 32), and scales, which divide these."""
    values = grids.IQ1.levels.T[points] - ONE
    values += delta[..., None]
    y = out.reshape(*scale.shape, -1)
    np.multiply(values.reshape(y.shape), scale[..., None], out=y)


def _decode_iq1_s(blocks: Blocks, out: Floats) -> None:
    qh = blocks["qh"]
    top = qh[..., None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7
    points = blocks["qs"].astype(np.intp) | top.reshape(-1, 32).astype(np.intp) << 8
    delta = np.where(qh & 0x8000, -DELTA, DELTA).repeat(4, axis=1)
    sc = 2 * (qh >> 12 & 7).astype(np.float32) + ONE
    _decode(points, delta, blocks["d"].astype(np.float32)[:, None] * sc, out)


def _decode_iq1_m(blocks: Blocks, out: Floats) -> None:
    nibbles = np.stack([blocks["qh"] & 15, blocks["qh"] >> 4], axis=2).reshape(-1, 32)
    points = blocks["qs"].astype(np.intp) | (nibbles & 7).astype(np.intp) << 8
    delta = np.where(nibbles & 8, -DELTA, DELTA)
    shifted = blocks["scales"][..., None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7
    sc = 2 * shifted.reshape(-1, 16).astype(np.float32) + ONE
    _decode(points, delta, _d_of_iq1_m(blocks).astype(np.float32)[:, None] * sc, out)


CODECS = (
    Codec(
        GGMLType.IQ1_S,
        IQ1_S,
        32,
        _encode_iq1_s,
        _decode_iq1_s,
        ("d",),
        Weighting(twice_mean),
        needs_importance=True,
        compiled="iq1",
    ),
    Codec(
        GGMLType.IQ1_M,
        IQ1_M,
        16,
        _encode_iq1_m,
        _decode_iq1_m,
        ("d",),
        Weighting(twice_mean),
        read_scale=lambda blocks, field: _d_of_iq1_m(blocks),
        compiled="iq1",
    ),
)
