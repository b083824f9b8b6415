"""IQ3_XXS and IQ3_S: groups of four weights from a grid, signs apart.

From ``quantize_row_iq3_*_impl`` and ``dequantize_row_iq3_*`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import grids
from lfm2gguf.quants.codec import Blocks, Codec, Floats, Weighting, twice_mean
from lfm2gguf.quants.iq2 import decode, eighth_sign, nibbles, scales_of
from lfm2gguf.quants.lattice import Found, Lattice, by_blocks, scale_bits
from lfm2gguf.quants.subblocks import as_columns

# w = d * (sc + 0.5) / 2 * VALUES[level] * sign: qs has 64 points, then for each 32 weights a
# uint32 of four times seven signs, and sc on top. The eighth sign makes their number even.
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("rest", "<u4", 8)])
# w = d * (2 * sc + 1) * (2 * level + 1) * sign: the low byte of each point in qs, its ninth bit
# in qh, eight signs a byte, and sc of 32 weights each in the nibbles of scales.
IQ3_S = np.dtype(
    [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
)

VALUES_XXS = np.array([4, 12, 20, 28, 36, 44, 52, 62], np.float32)
VALUES_S = np.arange(1, 16, 2, dtype=np.float32)
FUDGE_XXS, FUDGE_S = np.float32(1.0125), np.float32(1.033)
SEVENS = np.arange(0, 28, 7, dtype=np.uint32)

XXS = Lattice(grids.IQ3_XXS, 15, 0.2, 1e-8, True, "off")
S = Lattice(grids.IQ3_S, 9, 0.2, 1e-45, False, "off, whole")  # any weight but 0 is one


def _search(lattice: Lattice, x: Floats, weights: Floats | None) -> Found:
    columns, w, *_ = as_columns(x, 32)
    if weights is None:
        np.multiply(columns, columns, out=w)
    else:
        np.copyto(w, weights.reshape(-1, 32).T)
    return lattice.search(columns, w)


def _encode_iq3_xxs(x: Floats, out: Blocks, weights: Floats | None) -> None:
    found = _search(XXS, x, weights)
    scale = found.scale.reshape(-1, 8)
    sc, d = scale_bits(scale, 31, 15)
    out["d"] = d * FUDGE_XXS
    out["qs"] = by_blocks(found.points, len(out))
    signs = np.bitwise_or.reduce(found.signs.astype(np.uint32).T << SEVENS, axis=1)
    out["rest"] = signs.reshape(-1, 8) | sc.astype(np.uint32) << np.uint32(28)
    nothing = scale.max(axis=1) == 0
    out["qs"][nothing], out["rest"][nothing] = 0, 0


def _encode_iq3_s(x: Floats, out: Blocks, weights: Floats | None) -> None:
    found = _search(S, x, weights)
    scale = found.scale.reshape(-1, 8)
    sc, d = scale_bits(scale, 31, 15)
    out["d"] = d * FUDGE_S
    points = by_blocks(found.points, len(out))
    out["qh"] = np.packbits((points >> 8).astype(np.uint8), axis=1, bitorder="little")
    # C goes on to the next bytes only behind a sub-block that is not empty
    empty = found.empty.reshape(-1, 8)
    order = np.argsort(empty, axis=1, kind="stable")[..., None]
    low = (points & 255).astype(np.uint8).reshape(-1, 8, 8)
    signs = by_blocks(found.signs, len(out)).reshape(-1, 8, 4)
    out["qs"] = np.take_along_axis(low, order, axis=1).reshape(-1, 64)
    out["signs"] = np.take_along_axis(signs, order, axis=1).reshape(-1, 32)
    out["scales"] = sc[:, ::2] | sc[:, 1::2] << 4
    out["scales"][scale.max(axis=1) == 0] = 0


def _decode_iq3_xxs(blocks: Blocks, out: Floats) -> None:
    rest = blocks["rest"]
    seven = (rest[..., None] >> SEVENS & 127).astype(np.uint8)
    scale = scales_of(blocks["d"], (rest >> 28).astype(np.uint8), 0.5)
    points, signs = blocks["qs"].astype(np.intp), eighth_sign(seven).reshape(-1, 32)
    decode(grids.IQ3_XXS, VALUES_XXS, points, signs, scale, out)


def _decode_iq3_s(blocks: Blocks, out: Floats) -> None:
    ninth = np.unpackbits(np.ascontiguousarray(blocks["qh"]), axis=1, bitorder="little")
    points = blocks["qs"].astype(np.intp) | ninth.astype(np.intp) << 8
    sc = nibbles(blocks["scales"]).astype(np.float32)
    scale = blocks["d"].astype(np.float32)[:, None] * (sc + sc + np.float32(1))
    decode(grids.IQ3_S, VALUES_S, points, blocks["signs"], scale, out)


CODECS = (
    Codec(
        GGMLType.IQ3_XXS,
        IQ3_XXS,
        32,
        _encode_iq3_xxs,
        _decode_iq3_xxs,
        ("d",),
        Weighting(twice_mean),
        compiled="iq3",
    ),
    Codec(
        GGMLType.IQ3_S,
        IQ3_S,
        32,
        _encode_iq3_s,
        _decode_iq3_s,
        ("d",),
        Weighting(twice_mean),
        compiled="iq3",
    ),
)
