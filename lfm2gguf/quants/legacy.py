"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: blocks of 32 weights with a scale, and some a minimum.

From ``quantize_row_*_ref`` and ``dequantize_row_*`` of ggml/src/ggml-quants.c, llama.cpp
commit 0c1e57098. Nothing here is summed, so the order of operations does not matter. What an
importance matrix changes is in :mod:`lfm2gguf.quants.legacy_weighted`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats, Weighting, mean, scratch
from lfm2gguf.quants.legacy_weighted import encode_scale, encode_scale_and_min

#                   weight j         weight j + 16
# qs[j], 4 bits:    low nibble       high nibble     (j < 16)
# qh, fifth bits:   bit j            bit j + 16      (of a little-endian uint32)
Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])

ZERO = np.float32(0)
ALMOST_HALF = np.nextafter(np.float32(0.5), ZERO)

FOUR_FLOATS = np.complex128  # a number of 16 bytes: only ever copied
Bools = npt.NDArray[np.bool_]


def _rows_of_fours(x: Floats) -> tuple[Floats, Floats]:
    """Weights 4i to 4i + 3 of every block as row i, (8, 4n), and an array to work in.

    Long rows, as a transposition would give, at a third of its cost.
    """
    rows, work = scratch(2, (8, 4 * len(x)))
    np.copyto(rows.view(FOUR_FLOATS), x.view(FOUR_FLOATS).T)
    return rows, work


def _of_blocks(extremum: np.ufunc, rows: Floats) -> Floats:
    """The maximum or minimum of each block."""
    lane = extremum.reduce(rows, axis=0)
    value: Floats = extremum(extremum(lane[0::4], lane[1::4]), extremum(lane[2::4], lane[3::4]))
    return value


def _furthest(rows: Floats, x: Floats) -> Floats:
    """The value furthest from zero of each block, with its sign; the first of equals."""
    high, low = _of_blocks(np.maximum, rows), _of_blocks(np.minimum, rows)
    value = np.where(high > -low, high, low)
    tie = np.flatnonzero(high == -low)
    if len(tie):
        first = np.abs(x[tie]).argmax(axis=1)
        value[tie] = x[tie, first]
    return value + ZERO  # never -0


def _inverse(d: Floats) -> tuple[Floats, Bools]:
    """Return 1/d, and 0 where ``d`` is 0 or either is not a number.

    There C casts infinity and NaN to an 8-bit integer, which is undefined, and 0 on x86-64.
    """
    inverse = np.float32(1) / d
    lost = ~(np.isfinite(inverse) & np.isfinite(d))
    inverse[lost] = 0
    return inverse, lost & (d != 0)


def _levels(t: Floats, lost: Bools, top: int) -> Bytes:
    """C's cast to an integer, at most ``top``: (8, n, 4)."""
    q = t.astype(np.uint8)
    np.minimum(q, np.full(q.shape[1], top, np.uint8), out=q)
    levels = q.reshape(8, -1, 4)
    if lost.any():
        levels[:, lost] = 0
    return levels


def _store(levels: Bytes, out: Blocks) -> None:
    if "qh" in (out.dtype.names or ()):
        _store_fifth_bits(levels, out["qh"])
    _store_nibbles(levels, out["qs"])


def _store_nibbles(levels: Bytes, qs: Bytes) -> None:
    packed = levels[:4] & 15 | levels[4:] << 4
    qs.view("<u4")[:] = packed.view("<u4")[..., 0].T


def _store_fifth_bits(levels: Bytes, qh: Bytes) -> None:
    in_order = np.ascontiguousarray((levels >> 4).view("<u4")[..., 0].T).view(np.uint8)
    qh[:] = np.packbits(in_order.reshape(-1), bitorder="little").reshape(-1, 4)


def _encode_signed(x: Floats, out: Blocks, weights: Floats | None, half: int) -> None:
    """Q4_0 and Q5_0: 2 * ``half`` levels on both sides of zero."""
    if weights is not None:
        encode_scale(x, out, weights, half)
        return
    rows, t = _rows_of_fours(x)
    d = _furthest(rows, x) / np.float32(-half)
    inverse, lost = _inverse(d)
    np.multiply(rows, np.repeat(inverse, 4), out=t)
    t += np.float32(half + 0.5)
    out["d"] = d
    _store(_levels(t, lost, 2 * half - 1), out)


def _encode_with_min(x: Floats, out: Blocks, weights: Floats | None, top: int) -> None:
    """Q4_1 and Q5_1: levels 0 to ``top`` from the minimum on."""
    if weights is not None:
        encode_scale_and_min(x, out, weights, top)
        return
    rows, t = _rows_of_fours(x)
    low = _of_blocks(np.minimum, rows)
    zero = np.flatnonzero(low == 0)  # of which sign? C takes the first
    low[zero] = x[zero, x[zero].argmin(axis=1)]
    d = (_of_blocks(np.maximum, rows) - low + ZERO) / np.float32(top)
    inverse, lost = _inverse(d)
    np.subtract(rows, np.repeat(low, 4), out=t)
    np.multiply(t, np.repeat(inverse, 4), out=t)
    t += np.float32(0.5)
    out["d"] = d
    out["m"] = low
    _store(_levels(t, lost, top), out)


def _encode_q8_0(x: Floats, out: Blocks, weights: Floats | None) -> None:
    rows, t = _rows_of_fours(x)
    np.abs(rows, out=t)
    d = _of_blocks(np.maximum, t) / np.float32(127)
    inverse, lost = _inverse(d)
    np.multiply(t, np.repeat(inverse, 4), out=t)
    t += ALMOST_HALF  # roundf: half away from zero; 0.49999997 + 0.5 would already be 1
    levels = _levels(t, lost, 127)
    minus = (rows < 0).view(np.uint8).reshape(levels.shape)
    levels ^= np.negative(minus)
    levels += minus
    out["d"] = d
    out["qs"].view("<u4")[:] = levels.view("<u4")[..., 0].T


def _decode_q4_0(blocks: Blocks, out: Floats) -> None:
    out[:] = _four_bits(blocks).view(np.int8) - 8
    out *= blocks["d"].astype(np.float32)[:, None]


def _decode_q4_1(blocks: Blocks, out: Floats) -> None:
    out[:] = _four_bits(blocks)
    out *= blocks["d"].astype(np.float32)[:, None]
    out += blocks["m"].astype(np.float32)[:, None]


def _four_bits(blocks: Blocks) -> Bytes:
    return np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=1)


def _five_bits(blocks: Blocks) -> npt.NDArray[np.int8]:
    fifth = np.unpackbits(np.ascontiguousarray(blocks["qh"]), axis=1, bitorder="little")
    q = fifth << 4
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


def _codec(
    type: GGMLType,
    layout: np.dtype[Any],
    encode: Callable[[Floats, Blocks, Floats | None], None],
    decode: Callable[[Blocks, Floats], None],
) -> Codec:
    scales = tuple(field for field in ("d", "m") if field in (layout.names or ()))
    weighting = Weighting(mean, of_row=True)
    return Codec(type, layout, 32, encode, decode, scales, weighting, compiled="legacy")


CODECS = (
    _codec(GGMLType.Q4_0, Q4_0, partial(_encode_signed, half=8), _decode_q4_0),
    _codec(GGMLType.Q4_1, Q4_1, partial(_encode_with_min, top=15), _decode_q4_1),
    _codec(GGMLType.Q5_0, Q5_0, partial(_encode_signed, half=16), _decode_q5_0),
    _codec(GGMLType.Q5_1, Q5_1, partial(_encode_with_min, top=31), _decode_q5_1),
    Codec(GGMLType.Q8_0, Q8_0, 32, _encode_q8_0, _decode_q8_0, ("d",), compiled="legacy"),
)
