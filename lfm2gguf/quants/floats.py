"""F32, F16 and BF16: one number a weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants.codec import Blocks, Codec, Floats

F32 = np.dtype([("x", "<f4")])
F16 = np.dtype([("x", "<f2")])
BF16 = np.dtype([("x", "<u2")])  # the upper half of an F32


def bf16_to_f32(x: npt.NDArray[np.uint16], out: Floats | None = None) -> Floats:
    """Widen bfloat16, held as its bits in uint16, to float32. Exact."""
    if out is None:
        out = np.empty(x.shape, np.float32)
    bits = out.view(np.uint32)
    np.copyto(bits, x)
    bits <<= 16
    return out


def f32_to_bf16(x: Floats) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, half to even, as bits in uint16; NaN is not handled."""
    bits = x.view(np.uint32)
    half = bits >> 16
    half &= 1
    half += 0x7FFF
    half += bits
    half >>= 16
    return half.astype(np.uint16)


def _encode_f32(x: Floats, out: Blocks, weights: Floats | None) -> None:
    out["x"] = x[:, 0]


def _encode_f16(x: Floats, out: Blocks, weights: Floats | None) -> None:
    out["x"] = x[:, 0]


def _encode_bf16(x: Floats, out: Blocks, weights: Floats | None) -> None:
    out["x"] = f32_to_bf16(x[:, 0])


def _decode_float(blocks: Blocks, out: Floats) -> None:
    out[:, 0] = blocks["x"]


def _decode_bf16(blocks: Blocks, out: Floats) -> None:
    bf16_to_f32(blocks["x"], out[:, 0])


CODECS = (
    Codec(GGMLType.F32, F32, 16, _encode_f32, _decode_float, ("x",)),
    Codec(GGMLType.F16, F16, 16, _encode_f16, _decode_float, ("x",)),
    Codec(GGMLType.BF16, BF16, 16, _encode_bf16, _decode_bf16, ("x",)),
)
