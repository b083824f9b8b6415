"""Q4_K, Q5_K and Q6_K: super-blocks of 256 weights whose sub-blocks' scales are quantized too.

From ``quantize_row_q[456]_K_ref``, ``make_qkx2_quants`` and ``make_qx_quants`` of
ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098. C adds float32 strictly left to right;
so does ``np.add.reduce(axis=0)`` over a C-contiguous array (weights of a sub-block,
sub-blocks), which adds row after row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Codec, Floats, nearest_int

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

GROUP_MAX_EPS = np.float32(1e-15)
ZERO = np.float32(0)


def _levels(t: Floats, low: int, high: int) -> Floats:
    q = nearest_int(t)
    return np.clip(q, low, high, out=q).astype(np.float32)


def make_qkx2(x: Floats, nmax: int, rmin: float, nstep: int) -> tuple[Floats, Floats, Floats]:
    """Search scale, minimum and levels of sub-blocks, the columns of ``x`` (32, n)."""
    w = np.sqrt(np.add.reduce(x * x, axis=0) / np.float32(32)) + np.abs(x)
    low, high = x.min(axis=0), x.max(axis=0)
    sum_w = np.add.reduce(w, axis=0)
    sum_x = np.add.reduce(w * x, axis=0)
    low = np.minimum(low, ZERO)
    flat = high == low

    iscale = np.float32(nmax) / (high - low)
    scale = 1 / iscale
    levels = _levels(iscale * (x - low), 0, nmax)
    diff = scale * levels + low - x
    best = np.add.reduce(w * (diff * diff), axis=0)
    for step in range(nstep + 1):
        factor = np.float32(rmin) + np.float32(0.1) * np.float32(step) + np.float32(nmax)
        iscale = factor / (high - low)
        tried = _levels(iscale * (x - low), 0, nmax)
        wl = w * tried
        sum_l = np.add.reduce(wl, axis=0)
        sum_l2 = np.add.reduce(wl * tried, axis=0)
        sum_xl = np.add.reduce(wl * x, axis=0)
        det = sum_w * sum_l2 - sum_l * sum_l
        this_scale = (sum_w * sum_xl - sum_x * sum_l) / det
        this_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
        above = this_low > 0
        this_low[above] = 0
        this_scale[above] = (sum_xl / sum_l2)[above]
        diff = this_scale * tried + this_low - x
        error = np.add.reduce(w * (diff * diff), axis=0)
        better = (det > 0) & (error < best)
        np.copyto(levels, tried, where=better)
        np.copyto(best, error, where=better)
        np.copyto(scale, this_scale, where=better)
        np.copyto(low, this_low, where=better)
    scale[flat] = 0
    levels[:, flat] = 0
    return scale, -low, levels


def make_qx(x: Floats) -> tuple[Floats, Floats]:
    """Search scale and levels (0 to 63) of sub-blocks of Q6_K, the columns of ``x`` (16, n)."""
    at = np.abs(x).argmax(axis=0)
    peak = np.take_along_axis(x, at[None], axis=0)[0]
    zero = np.abs(peak) < GROUP_MAX_EPS
    w = x * x
    wx = w * x
    scale = best = levels = np.empty(0, np.float32)
    for step in (0, *range(-9, 0), *range(1, 10)):
        iscale = -(np.float32(32) + np.float32(0.1) * np.float32(step)) / peak
        tried = _levels(iscale * x, -32, 31)
        sum_lx = np.add.reduce(wx * tried, axis=0)
        sum_l2 = np.add.reduce(w * tried * tried, axis=0)
        if step == 0:
            scale = np.where(sum_l2 != 0, sum_lx / sum_l2, ZERO)
            best = scale * sum_lx
            levels = tried
            continue
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        np.copyto(levels, tried, where=better)
        np.copyto(scale, sum_lx / sum_l2, where=better)
        np.copyto(best, scale * sum_lx, where=better)
    levels += 32
    scale[zero] = 0
    levels[:, zero] = 0
    return scale, levels


def _six_bits(ratio: Floats, values: Floats) -> npt.NDArray[np.uint8]:
    return np.minimum(nearest_int(ratio[:, None] * values).astype(np.uint8), 63)


def _pack_scales(sc: npt.NDArray[np.uint8], m: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.concatenate(
        [
            sc[:, :4] | (sc[:, 4:] >> 4) << 6,
            m[:, :4] | (m[:, 4:] >> 4) << 6,
            (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        ],
        axis=1,
    )


def _unpack_scales(
    b: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    sc, m, low = b[:, :4], b[:, 4:8], b[:, 8:]
    return (
        np.concatenate([sc & 63, (low & 15) | (sc >> 6) << 4], axis=1),
        np.concatenate([m & 63, (low >> 4) | (m >> 6) << 4], axis=1),
    )


def _quantize_scales(values: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return 6-bit scales (or minima) for each row's 8 sub-blocks, and their scale."""
    # C's comparisons with NaN are false: such a value is never the largest
    largest = np.fmax.reduce(values, axis=1, initial=0) + ZERO  # never -0
    ratio = np.where(largest > 0, np.float32(63) / largest, ZERO)
    return _six_bits(ratio, values), largest / np.float32(63)


def _encode_with_min(
    x: Floats, out: Blocks, nmax: int, rmin: float, nstep: int
) -> npt.NDArray[np.uint8]:
    """Fill in the scales of Q4_K or Q5_K blocks; return the levels, (n, 8, 32)."""
    n = len(x)
    columns = np.ascontiguousarray(x.reshape(-1, 32).T)
    scale, low, levels = make_qkx2(columns, nmax, rmin, nstep)
    sc, out["d"] = _quantize_scales(scale.reshape(n, 8))
    m, out["dmin"] = _quantize_scales(low.reshape(n, 8))
    out["scales"] = _pack_scales(sc, m)
    d = (out["d"].astype(np.float32)[:, None] * sc).reshape(-1)
    dm = (out["dmin"].astype(np.float32)[:, None] * m).reshape(-1)
    final = _levels((columns + dm) / d, 0, nmax)
    np.copyto(final, levels, where=d == 0)
    return np.ascontiguousarray(final.astype(np.uint8).T).reshape(n, 8, 32)


def _encode_q4_k(x: Floats, out: Blocks) -> None:
    q = _encode_with_min(x, out, nmax=15, rmin=-1.0, nstep=20)
    out["qs"] = (q[:, 0::2] | q[:, 1::2] << 4).reshape(-1, 128)


def _encode_q5_k(x: Floats, out: Blocks) -> None:
    q = _encode_with_min(x, out, nmax=31, rmin=-0.5, nstep=15)
    out["qh"] = np.packbits(q >> 4, axis=1, bitorder="little")[:, 0]
    q &= 15
    out["qs"] = (q[:, 0::2] | q[:, 1::2] << 4).reshape(-1, 128)


def _encode_q6_k(x: Floats, out: Blocks) -> None:
    n = len(x)
    columns = np.ascontiguousarray(x.reshape(-1, 16).T)
    scale, levels = make_qx(columns)
    scale = scale.reshape(n, 16)
    at = np.abs(np.where(np.isnan(scale), ZERO, scale)).argmax(axis=1)
    largest = np.take_along_axis(scale, at[:, None], axis=1)[:, 0]
    zero = ~(np.abs(largest) >= GROUP_MAX_EPS)
    iscale = np.float32(-128) / largest
    out["d"] = 1 / iscale
    out["scales"] = np.minimum(nearest_int(iscale[:, None] * scale), 127)
    d = (out["d"].astype(np.float32)[:, None] * out["scales"]).reshape(-1)
    final = _levels(columns / d, -32, 31) + np.float32(32)
    np.copyto(final, levels, where=d == 0)
    q = np.ascontiguousarray(final.astype(np.uint8).T).reshape(n, 2, 4, 32)
    low, top = q & 15, q >> 4
    out["ql"] = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(n, 128)
    top = top[:, :, 0] | top[:, :, 1] << 2 | top[:, :, 2] << 4 | top[:, :, 3] << 6
    out["qh"] = top.reshape(n, 64)
    out[zero] = np.zeros((), Q6_K)


def _decode_with_min(blocks: Blocks, out: Floats, q: npt.NDArray[np.uint8]) -> None:
    sc, m = _unpack_scales(blocks["scales"])
    y = out.reshape(-1, 8, 32)
    y[:] = q
    y *= (blocks["d"].astype(np.float32)[:, None] * sc)[..., None]
    y -= (blocks["dmin"].astype(np.float32)[:, None] * m)[..., None]


def _four_bits(blocks: Blocks) -> npt.NDArray[np.uint8]:
    qs = blocks["qs"].reshape(-1, 4, 1, 32)
    return (qs >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, 8, 32)


def _decode_q4_k(blocks: Blocks, out: Floats) -> None:
    _decode_with_min(blocks, out, _four_bits(blocks))


def _decode_q5_k(blocks: Blocks, out: Floats) -> None:
    fifth = np.unpackbits(blocks["qh"][:, None], axis=1, bitorder="little")
    _decode_with_min(blocks, out, _four_bits(blocks) | fifth << 4)


def _decode_q6_k(blocks: Blocks, out: Floats) -> None:
    ql = blocks["ql"].reshape(-1, 2, 1, 64)
    low = (ql >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, 2, 4, 32)
    qh = blocks["qh"].reshape(-1, 2, 1, 32)
    top = qh >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = (low | top << 4).view(np.int8) - 32
    y = out.reshape(-1, 16, 16)
    y[:] = q.reshape(-1, 16, 16)
    y *= (blocks["d"].astype(np.float32)[:, None] * blocks["scales"])[..., None]


CODECS = (
    Codec(GGMLType.Q4_K, Q4_K, _encode_q4_k, _decode_q4_k, ("d", "dmin")),
    Codec(GGMLType.Q5_K, Q5_K, _encode_q5_k, _decode_q5_k, ("d", "dmin")),
    Codec(GGMLType.Q6_K, Q6_K, _encode_q6_k, _decode_q6_k, ("d",)),
)
