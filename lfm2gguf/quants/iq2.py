"""IQ2_XXS, IQ2_XS and IQ2_S: groups of eight weights from a grid, signs apart.

From ``quantize_row_iq2_*_impl`` and ``dequantize_row_iq2_*`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import grids
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats, Weighting, mean, twice_mean
from lfm2gguf.quants.grids import Grid, Indices
from lfm2gguf.quants.importance import sums_of_rows
from lfm2gguf.quants.lattice import Lattice, by_blocks, scale_bits
from lfm2gguf.quants.search import GROUP_MAX_EPS
from lfm2gguf.quants.subblocks import as_columns

# w = d * (sc + 0.5) / 4 * VALUES[level] * sign, groups of eight weights.
# For each 32 weights two uint32: four points, a byte each; four times seven signs, and sc on top.
# The eighth sign makes their number even.
IQ2_XXS = np.dtype([("d", "<f2"), ("qs", "<u4", (8, 2))])
# qs: for each eight weights the point, 9 bits, and seven signs on top; sc of sixteen weights
# each in the nibbles of scales.
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
# For each eight weights the low byte of the point in qs, two more bits in qh, eight signs.
IQ2_S = np.dtype(
    [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
)

VALUES = np.array([8, 25, 43], np.float32)
FUDGE = np.float32(0.9875)  # of IQ2_S
PAIRS = np.array([0, 2, 4, 6], np.uint8)

XXS = Lattice(grids.IQ2_XXS, 6, 0.1, float(GROUP_MAX_EPS), True, "all", first_fit=True)
XS = Lattice(grids.IQ2_XS, 9, 0.1, float(GROUP_MAX_EPS), True, "off")
S = Lattice(grids.IQ2_S, 9, 0.1, 1e-8, False, "off")


def _encode_iq2_xxs(x: Floats, out: Blocks, weights: Floats | None) -> None:
    assert weights is not None
    columns, w, *_ = as_columns(x, 32)
    np.copyto(w, weights.reshape(-1, 32).T)
    found = XXS.search(columns, w)
    sc, out["d"] = scale_bits(found.scale.reshape(-1, 8), 31, 15)
    low = found.points.astype(np.uint32).T << np.arange(0, 32, 8, dtype=np.uint32)
    high = found.signs.astype(np.uint32).T << np.arange(0, 28, 7, dtype=np.uint32)
    out["qs"][..., 0] = np.bitwise_or.reduce(low, axis=1).reshape(-1, 8)
    out["qs"][..., 1] = np.bitwise_or.reduce(high, axis=1).reshape(-1, 8)
    out["qs"][..., 1] |= sc.astype(np.uint32) << np.uint32(28)
    out["qs"][_nothing(found.scale, 8)] = 0


def _encode_iq2_xs(x: Floats, out: Blocks, weights: Floats | None) -> None:
    assert weights is not None
    columns, w, *_ = as_columns(x, 16)
    np.copyto(w, weights.reshape(-1, 16).T)
    found = XS.search(columns, w)
    sc, out["d"] = scale_bits(found.scale.reshape(-1, 16), 31, 15)
    both = found.points.astype(np.uint16) | found.signs.astype(np.uint16) << np.uint16(9)
    out["qs"] = by_blocks(both, len(out))
    out["scales"] = sc[:, ::2] | sc[:, 1::2] << 4
    nothing = _nothing(found.scale, 16)
    out["qs"][nothing], out["scales"][nothing] = 0, 0


def _encode_iq2_s(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w, *_ = as_columns(x, 16)
    if weights is None:
        squares = x * x
        variance = twice_mean(sums_of_rows(squares), 256)
        squares += (np.float32(0.25) * variance)[:, None]
        weights = squares
    np.copyto(w, weights.reshape(-1, 16).T)
    found = S.search(columns, w)
    sc, d = scale_bits(found.scale.reshape(-1, 16), 31, 15)
    out["d"] = d * FUDGE
    points = by_blocks(found.points, len(out))
    out["qs"] = points & 255
    top = (points >> 8).astype(np.uint8).reshape(-1, 8, 4) << PAIRS
    out["qh"] = np.bitwise_or.reduce(top, axis=2)
    out["signs"] = by_blocks(found.signs, len(out))
    out["scales"] = sc[:, ::2] | sc[:, 1::2] << 4
    out["scales"][_nothing(found.scale, 16)] = 0


def _nothing(scale: Floats, per_block: int) -> npt.NDArray[np.bool_]:
    nothing: npt.NDArray[np.bool_] = scale.reshape(-1, per_block).max(axis=1) == 0
    return nothing


def eighth_sign(seven: Bytes) -> Bytes:
    """Return the signs of eight weights, even in number, from seven of them."""
    minus = np.unpackbits(seven[..., None], axis=-1).sum(axis=-1, dtype=np.uint8)
    signs: Bytes = seven | (minus & np.uint8(1)) << np.uint8(7)
    return signs


def decode(
    grid: Grid, values: Floats, points: Indices, signs: Bytes, scale: Floats, out: Floats
) -> None:
    """Fill in weights from points and signs (n, groups; n, 32) and scales, which divide these."""
    groups = values[grid.levels.astype(np.intp)].T[points]
    y = out.reshape(*scale.shape, -1)
    np.multiply(groups.reshape(y.shape), scale[..., None], out=y)
    minus = np.unpackbits(np.ascontiguousarray(signs), axis=1, bitorder="little")
    out *= np.where(minus, np.float32(-1), np.float32(1))


def scales_of(d: npt.NDArray[np.float16], sc: Bytes, factor: float) -> Floats:
    """Return the scales d * (0.5 + sc) * factor, rounded as often as C does."""
    scale: Floats = d.astype(np.float32)[:, None] * (np.float32(0.5) + sc.astype(np.float32))
    scale *= np.float32(factor)
    return scale


def nibbles(b: Bytes) -> Bytes:
    """Return the low and high nibble of each byte, (n, 2k)."""
    return np.stack([b & np.uint8(15), b >> np.uint8(4)], axis=2).reshape(len(b), -1)


def _decode_iq2_xxs(blocks: Blocks, out: Floats) -> None:
    low, high = blocks["qs"][..., 0], blocks["qs"][..., 1]
    points = low[..., None] >> np.arange(0, 32, 8, dtype=np.uint32) & 255
    seven = high[..., None] >> np.arange(0, 28, 7, dtype=np.uint32) & 127
    signs = eighth_sign(seven.astype(np.uint8)).reshape(-1, 32)
    scale = scales_of(blocks["d"], (high >> 28).astype(np.uint8), 0.25)
    decode(grids.IQ2_XXS, VALUES, points.reshape(-1, 32).astype(np.intp), signs, scale, out)


def _decode_iq2_xs(blocks: Blocks, out: Floats) -> None:
    qs = blocks["qs"]
    signs = eighth_sign((qs >> 9).astype(np.uint8))
    scale = scales_of(blocks["d"], nibbles(blocks["scales"]), 0.25)
    decode(grids.IQ2_XS, VALUES, (qs & 511).astype(np.intp), signs, scale, out)


def _decode_iq2_s(blocks: Blocks, out: Floats) -> None:
    top = (blocks["qh"][..., None] >> PAIRS & 3).reshape(-1, 32).astype(np.intp)
    points = blocks["qs"].astype(np.intp) | top << 8
    scale = scales_of(blocks["d"], nibbles(blocks["scales"]), 0.25)
    decode(grids.IQ2_S, VALUES, points, blocks["signs"], scale, out)


CODECS = (
    Codec(
        GGMLType.IQ2_XXS,
        IQ2_XXS,
        32,
        _encode_iq2_xxs,
        _decode_iq2_xxs,
        ("d",),
        Weighting(mean),
        needs_importance=True,
        compiled="iq2",
    ),
    Codec(
        GGMLType.IQ2_XS,
        IQ2_XS,
        16,
        _encode_iq2_xs,
        _decode_iq2_xs,
        ("d",),
        Weighting(mean),
        needs_importance=True,
        compiled="iq2",
    ),
    Codec(
        GGMLType.IQ2_S,
        IQ2_S,
        16,
        _encode_iq2_s,
        _decode_iq2_s,
        ("d",),
        Weighting(twice_mean),
        compiled="iq2",
    ),
)
