"""TQ1_0, TQ2_0, Q1_0 and Q2_0: one or two bits and a scale, no search.

From ``quantize_row_*_ref`` and ``dequantize_row_*`` of ggml/src/ggml-quants.c, llama.cpp
commit 0c1e57098. They are made for models that were trained with such weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats
from lfm2gguf.quants.search import ONE, ZERO

# w = d * (q - 1), five of the levels 0, 1, 2 in a byte: their base-3 digits, as a fraction of
# 256. With the weights in order: qs[m] (m < 32) has weights m + 32 * i (i < 5),
# qs[32 + m] (m < 16) 160 + m + 16 * i, and qh[j] (j < 4) 240 + j + 4 * i (i < 4).
TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
# w = d * (q - 1): qs[32 * i + m] has weights 128 * i + m + 32 * j (j < 4), low bits first.
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])
# w = d or -d: bit i of qs[j] is set where weight 8 * j + i is not negative.
Q1_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
# w = d * (q - 1): qs[j] has weights 4 * j to 4 * j + 3, low bits first.
Q2_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
TWOS = np.array([0, 2, 4, 6], np.uint8)


def _thirds(x: Floats, lost_level: int) -> tuple[Bytes, Floats]:
    """Levels 0, 1, 2 of weights (n, block size), and their scale: the largest.

    Where 1 / scale overflows all weights of the block get ``lost_level``.
    """
    d = np.abs(x).max(axis=1)
    inverse = np.where(d != 0, ONE / d, ZERO)
    t = x * inverse[:, None]
    levels = ((t >= 0.5).astype(np.uint8) + np.uint8(1)) - (t <= -0.5)
    levels[np.isinf(inverse)] = lost_level
    return levels, d


def _in_order(blocks: Blocks) -> list[tuple[slice, Bytes, int]]:
    """Weights, the bytes that have them, and how many weights a byte has."""
    qs = blocks["qs"]
    return [
        (slice(0, 160), qs[:, :32], 5),
        (slice(160, 240), qs[:, 32:], 5),
        (slice(240, 256), blocks["qh"], 4),
    ]


def _encode_tq1_0(x: Floats, out: Blocks, weights: Floats | None) -> None:
    levels, d = _thirds(x, 1)
    out["d"] = d
    for span, data, digits in _in_order(out):
        of_bytes = levels[:, span].reshape(len(x), digits, -1).astype(np.int32)
        number: npt.NDArray[np.signedinteger[Any]] = np.zeros(data.shape, np.int32)
        for i in range(5):
            number = number * 3 + (of_bytes[:, i] if i < digits else 0)
        data[:] = (number * 256 + 242) // 243


def _decode_tq1_0(blocks: Blocks, out: Floats) -> None:
    for span, data, digits in _in_order(blocks):
        shifted = data[:, None] * POWERS[:digits, None]
        levels = (shifted.astype(np.uint16) * 3 >> 8).astype(np.float32)
        out[:, span] = levels.reshape(len(out), -1) - ONE
    out *= blocks["d"].astype(np.float32)[:, None]


def _encode_tq2_0(x: Floats, out: Blocks, weights: Floats | None) -> None:
    levels, out["d"] = _thirds(x, 1)
    shifted = levels.reshape(-1, 2, 4, 32) << TWOS[:, None]
    out["qs"] = np.bitwise_or.reduce(shifted, axis=2).reshape(-1, 64)


def _decode_tq2_0(blocks: Blocks, out: Floats) -> None:
    levels = blocks["qs"].reshape(-1, 2, 1, 32) >> TWOS[:, None] & 3
    out[:] = levels.reshape(-1, 256)
    out -= ONE
    out *= blocks["d"].astype(np.float32)[:, None]


def _encode_q1_0(x: Floats, out: Blocks, weights: Floats | None) -> None:
    out["d"] = np.add.accumulate(np.abs(x), axis=1)[:, -1] / np.float32(128)
    out["qs"] = np.packbits(x >= 0, axis=1, bitorder="little")


def _decode_q1_0(blocks: Blocks, out: Floats) -> None:
    positive = np.unpackbits(np.ascontiguousarray(blocks["qs"]), axis=1, bitorder="little")
    d = blocks["d"].astype(np.float32)[:, None]
    out[:] = np.where(positive, d, -d)


def _encode_q2_0(x: Floats, out: Blocks, weights: Floats | None) -> None:
    levels, out["d"] = _thirds(x, 0)
    out["qs"] = np.bitwise_or.reduce(levels.reshape(-1, 16, 4) << TWOS, axis=2)


def _decode_q2_0(blocks: Blocks, out: Floats) -> None:
    levels = blocks["qs"][..., None] >> TWOS & 3
    out[:] = levels.reshape(-1, 64)
    out -= ONE
    out *= blocks["d"].astype(np.float32)[:, None]


CODECS = (
    Codec(GGMLType.TQ1_0, TQ1_0, 16, _encode_tq1_0, _decode_tq1_0, ("d",)),
    Codec(GGMLType.TQ2_0, TQ2_0, 16, _encode_tq2_0, _decode_tq2_0, ("d",)),
    Codec(GGMLType.Q1_0, Q1_0, 16, _encode_q1_0, _decode_q1_0, ("d",)),
    Codec(GGMLType.Q2_0, Q2_0, 16, _encode_q2_0, _decode_q2_0, ("d",)),
)
