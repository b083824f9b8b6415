"""IQ4_NL and IQ4_XS: sixteen levels that lie closer together around zero.

From ``quantize_row_iq4_nl_impl`` and ``dequantize_row_iq4_*`` of ggml/src/ggml-quants.c, and
``kvalues_iq4nl`` of ggml/src/ggml-common.h, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Bytes, Codec, Floats, Weighting, nearest_int
from lfm2gguf.quants.search import GROUP_MAX_EPS, ONE, ZERO, furthest_from_zero, total
from lfm2gguf.quants.subblocks import as_columns, scaled

# w = d * VALUES[q]; qs[j]: weight j in the low nibble, j + 16 in the high one (j < 16).
IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
# w = d * (sc - 32) * VALUES[q], sub-blocks of 32 weights, each with the qs of IQ4_NL.
# sc of sub-block i, 6 bits: the low 4 in nibble i of scales_l, the top 2 in bits 2i of scales_h.
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])

VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
# The nearest level of t is LEVELS[floor(2 * t) + 256]: half way between two is a multiple of 0.5.
STEPS = np.arange(-256, 256, dtype=np.float32) / 2
LEVELS = np.searchsorted((VALUES[1:] + VALUES[:-1]) / 2, STEPS, side="right").astype(np.uint8)
VALUE_OF_STEP = VALUES[LEVELS]
TRIES = 7


def _steps(t: Floats, out: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Where t is in :data:`STEPS`, beyond the ends and for NaN as C has it; overwrites ``t``."""
    t += t
    np.floor(t, out=t)
    np.fmin(t, np.float32(255), out=t)  # NaN as well
    np.maximum(t, np.float32(-256), out=t)
    np.copyto(out, t, casting="unsafe")
    out += np.int16(256)
    return out


def _search(x: Floats, w: Floats, work: Sequence[Floats]) -> Floats:
    """The scale of each column of ``x`` (32, n), squared errors weighed by ``w``."""
    wx, t, q = work
    steps = np.empty(x.shape, np.int16)
    peak = furthest_from_zero(x)
    scale, best = np.zeros_like(peak), np.zeros_like(peak)
    for step in (None, *range(-TRIES, TRIES + 1)):
        if step is None:
            inverse = ONE / (-peak / VALUES[0])
        else:
            inverse = (np.float32(step) + VALUES[0]) / peak
        np.multiply(x, inverse, out=t)
        np.take(VALUE_OF_STEP, _steps(t, steps), out=q, mode="clip")
        np.multiply(w, q, out=t)
        np.multiply(t, x, out=wx)
        sum_qx = total(wx)
        np.multiply(t, q, out=t)
        sum_q2 = total(t)
        found = sum_q2 > 0
        tried = np.where(found, sum_qx / sum_q2, ZERO)
        if step is None:
            scale, best = tried, tried * sum_qx
            continue
        better = found & (sum_qx * sum_qx > best * sum_q2)
        np.putmask(scale, better, tried)
        np.putmask(best, better, tried * sum_qx)
    scale[np.abs(peak) < GROUP_MAX_EPS] = 0
    return scale


def _weigh(columns: Floats, w: Floats, weights: Floats | None) -> None:
    if weights is None:
        np.multiply(columns, columns, out=w)
    else:
        np.copyto(w, weights.reshape(-1, 32).T)


def _inverse(d: Floats) -> Floats:
    inverse: Floats = np.where(d != 0, ONE / d, ZERO)
    return inverse


def _nibbles(columns: Floats, inverse: Floats, t: Floats) -> Bytes:
    """The levels as they are stored, (n, 16)."""
    steps = np.empty(columns.shape, np.int16)
    levels = LEVELS[_steps(np.multiply(columns, inverse, out=t), steps)]
    packed: Bytes = levels[:16] | levels[16:] << np.uint8(4)
    return packed.T


def _encode_iq4_nl(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w, *work = as_columns(x, 32)
    _weigh(columns, w, weights)
    scale = _search(columns, w, work)
    out["d"] = scale
    out["qs"] = _nibbles(columns, _inverse(scale), work[0])


def _encode_iq4_xs(x: Floats, out: Blocks, weights: Floats | None) -> None:
    columns, w, *work = as_columns(x, 32)
    _weigh(columns, w, weights)
    scale = _search(columns, w, work).reshape(-1, 8)
    size = np.abs(scale)
    size[np.isnan(size)] = 0  # to C's comparisons NaN is never the largest
    largest = np.take_along_axis(scale, size.argmax(axis=1)[:, None], axis=1)
    largest[size.max(axis=1) == 0] = 0
    d = -largest / np.float32(32)
    sc = np.clip(nearest_int(_inverse(d) * scale), -32, 31)
    out["d"] = d[:, 0]
    _pack_scales((sc + 32).astype(np.uint8), out)
    inverse = _inverse(d * sc.astype(np.float32)).reshape(-1)
    out["qs"] = _nibbles(columns, inverse, work[0]).reshape(-1, 128)


def _pack_scales(sc: Bytes, out: Blocks) -> None:
    out["scales_l"] = sc[:, ::2] & 15 | sc[:, 1::2] << 4
    top = (sc >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16)
    out["scales_h"] = np.bitwise_or.reduce(top, axis=1)


def _unpack_scales(blocks: Blocks) -> npt.NDArray[np.int8]:
    low = np.stack([blocks["scales_l"] & 15, blocks["scales_l"] >> 4], axis=2).reshape(-1, 8)
    high = blocks["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scales: npt.NDArray[np.int8] = (low | high << 4).astype(np.int8) - np.int8(32)
    return scales


def _values(qs: Bytes) -> Floats:
    """VALUES of the levels stored as (..., 16) bytes: (..., 32)."""
    values: Floats = VALUES[np.concatenate([qs & 15, qs >> 4], axis=-1)]
    return values


def _decode_iq4_nl(blocks: Blocks, out: Floats) -> None:
    np.multiply(_values(blocks["qs"]), blocks["d"].astype(np.float32)[:, None], out=out)


def _decode_iq4_xs(blocks: Blocks, out: Floats) -> None:
    d = scaled(blocks["d"], _unpack_scales(blocks))
    values = _values(blocks["qs"].reshape(-1, 8, 16))
    np.multiply(values, d[..., None], out=out.reshape(-1, 8, 32))


def _variance(total: Floats, n: int) -> Floats:
    variance: Floats = total * np.float32(2 / n)
    return variance


CODECS = (
    Codec(
        GGMLType.IQ4_NL,
        IQ4_NL,
        32,
        _encode_iq4_nl,
        _decode_iq4_nl,
        ("d",),
        Weighting(_variance),
        compiled="nonlinear",
    ),
    Codec(
        GGMLType.IQ4_XS,
        IQ4_XS,
        32,
        _encode_iq4_xs,
        _decode_iq4_xs,
        ("d",),
        Weighting(_variance),
        compiled="nonlinear",
    ),
)
