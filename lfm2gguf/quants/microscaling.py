"""MXFP4: blocks of 32 weights, floats of four bits under a power of two.

From ``quantize_row_mxfp4_ref`` and ``dequantize_row_mxfp4`` of ggml/src/ggml-quants.c,
``ggml_e8m0_to_fp32_half`` of ggml/src/ggml-impl.h and ``kvalues_fp4`` of
ggml/src/ggml-common.h, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Codec, Floats
from lfm2gguf.quants.subblocks import as_columns

# w = 2**(e - 128) * VALUES[q]; qs[j]: weight j in the low nibble, j + 16 in the high one.
MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])

VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
SCALES = np.ldexp(1.0, np.arange(256) - 128).astype(np.float32)  # the first two are denormal


def _encode_mxfp4(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, best, error, *_ = as_columns(x, 32)
    peak = np.abs(x).max(axis=1)
    # log2f, rounded to float32, reaches the next integer a little before its time: so in C too
    exponent = np.floor(np.log2(peak, dtype=np.float64).astype(np.float32)) - 2 + 127
    e = np.where(peak > 0, exponent, 0).astype(np.int32).astype(np.uint8)
    scale = SCALES[e]
    levels = np.zeros(columns.shape, np.uint8)
    best[:] = np.inf
    for level, value in enumerate(VALUES):
        np.subtract(value * scale, columns, out=error)
        np.abs(error, out=error)
        better = error < best
        np.copyto(best, error, where=better)
        levels[better] = level
    out["e"] = e
    out["qs"] = (levels[:16] | levels[16:] << 4).T


def _decode_mxfp4(blocks: Blocks, out: Floats) -> None:
    scale = SCALES[blocks["e"]][:, None]
    out[:, :16] = VALUES[blocks["qs"] & 15] * scale
    out[:, 16:] = VALUES[blocks["qs"] >> 4] * scale


CODECS = (Codec(GGMLType.MXFP4, MXFP4, 32, _encode_mxfp4, _decode_mxfp4, ("e",)),)
