"""Q4_0, Q5_0, Q5_1 and Q8_0: blocks of 32 weights with one scale, and for Q5_1 a minimum.

From ``quantize_row_*_ref`` and ``dequantize_row_*`` of ggml/src/ggml-quants.c, llama.cpp
commit 0c1e57098. Nothing here is summed, so the order of operations is no concern.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Codec, Floats

#                   weight j         weight j + 16
# qs[j], 4 bits:    low nibble       high nibble     (j < 16)
# qh, fifth bits:   bit j            bit j + 16      (of a little-endian uint32)
Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])

BIT = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
ALMOST_HALF = np.nextafter(np.float32(0.5), np.float32(0))


def _inverse(d: Floats) -> Floats:
    return np.where(d == 0, np.float32(0), 1 / d)


def _extreme(x: Floats) -> Floats:
    """Return the value furthest from zero of each row, with its sign; the first of equals."""
    at = np.abs(x).argmax(axis=1)
    return np.take_along_axis(x, at[:, None], axis=1)[:, 0] + np.float32(0)  # never -0


def _truncate(x: Floats) -> npt.NDArray[np.uint8]:
    """C's cast of a non-negative float to an 8-bit integer; NaN and infinity give 0 on x86-64."""
    x[~np.isfinite(x)] = 0
    return x.astype(np.uint8)


def _nibbles(q: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    low, high = q[:, :16] & 15, q[:, 16:] & 15
    return low | high << 4


def _fifth_bits(q: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return np.packbits(q >> 4, axis=1, bitorder="little").view("<u4")[:, 0]


def _encode_q4_0(x: Floats, out: Blocks) -> None:
    d = _extreme(x) / np.float32(-8)
    q = _truncate(x * _inverse(d)[:, None] + np.float32(8.5))
    out["d"] = d
    out["qs"] = _nibbles(np.minimum(q, 15))


def _encode_q5_0(x: Floats, out: Blocks) -> None:
    d = _extreme(x) / np.float32(-16)
    q = np.minimum(_truncate(x * _inverse(d)[:, None] + np.float32(16.5)), 31)
    out["d"] = d
    out["qh"] = _fifth_bits(q)
    out["qs"] = _nibbles(q)


def _encode_q5_1(x: Floats, out: Blocks) -> None:
    at = x.argmin(axis=1)  # and not min, which may mistake -0 for 0
    low = np.take_along_axis(x, at[:, None], axis=1)[:, 0]
    d = (x.max(axis=1) - low + np.float32(0)) / np.float32(31)
    q = _truncate((x - low[:, None]) * _inverse(d)[:, None] + np.float32(0.5))
    out["d"] = d
    out["m"] = low
    out["qh"] = _fifth_bits(q)
    out["qs"] = _nibbles(q)


def _encode_q8_0(x: Floats, out: Blocks) -> None:
    d = np.abs(x).max(axis=1) / np.float32(127)
    t = x * _inverse(d)[:, None]
    t[~np.isfinite(t)] = 0
    # roundf, half away from zero: add just under a half (0.49999997 + 0.5 would be 1), truncate
    t += np.copysign(ALMOST_HALF, t)
    out["d"] = d
    out["qs"] = t.astype(np.int8)


def _decode_q4_0(blocks: Blocks, out: Floats) -> None:
    out[:, :16] = (blocks["qs"] & 15).view(np.int8) - 8
    out[:, 16:] = (blocks["qs"] >> 4).view(np.int8) - 8
    out *= blocks["d"].astype(np.float32)[:, None]


def _five_bits(blocks: Blocks) -> npt.NDArray[np.int8]:
    q = np.empty((len(blocks), 32), np.uint8)
    q[:] = np.unpackbits(
        np.ascontiguousarray(blocks["qh"]).view(np.uint8).reshape(-1, 4), axis=1, bitorder="little"
    )
    q <<= 4
    q[:, :16] |= blocks["qs"] & 15
    q[:, 16:] |= blocks["qs"] >> 4
    return q.view(np.int8)


def _decode_q5_0(blocks: Blocks, out: Floats) -> None:
    out[:] = _five_bits(blocks) - 16
    out *= blocks["d"].astype(np.float32)[:, None]


def _decode_q5_1(blocks: Blocks, out: Floats) -> None:
    out[:] = _five_bits(blocks)
    out *= blocks["d"].astype(np.float32)[:, None]
    out += blocks["m"].astype(np.float32)[:, None]


def _decode_q8_0(blocks: Blocks, out: Floats) -> None:
    out[:] = blocks["qs"]
    out *= blocks["d"].astype(np.float32)[:, None]


CODECS = (
    Codec(GGMLType.Q4_0, Q4_0, _encode_q4_0, _decode_q4_0, ("d",)),
    Codec(GGMLType.Q5_0, Q5_0, _encode_q5_0, _decode_q5_0, ("d",)),
    Codec(GGMLType.Q5_1, Q5_1, _encode_q5_1, _decode_q5_1, ("d", "m")),
    Codec(GGMLType.Q8_0, Q8_0, _encode_q8_0, _decode_q8_0, ("d",)),
)
