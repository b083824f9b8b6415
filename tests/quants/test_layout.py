"""Blocks built by hand, byte for byte, from the comments of ggml/src/ggml-common.h."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, bf16_to_f32, dequantize, f32_to_bf16, quantize


def read(data: bytes, type: str) -> list[float]:
    n = GGMLType[type].block_size
    return dequantize(np.frombuffer(data, np.uint8), type, (n,)).tolist()


def f16(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


@pytest.mark.parametrize("type", CODECS, ids=lambda type: type.name)
def test_layout_is_as_large_as_ggml_says(type: GGMLType) -> None:
    assert CODECS[type].layout.itemsize == type.type_size


def test_q4_0() -> None:
    weights = read(f16(0.5) + bytes([0x1F] + [0x88] * 14 + [0xE3]), "Q4_0")
    assert weights[0] == 3.5  # (15 - 8) / 2
    assert weights[16] == -3.5  # (1 - 8) / 2
    assert weights[15] == -2.5
    assert weights[31] == 3.0
    assert set(weights[1:15] + weights[17:31]) == {0}


def test_q5_0() -> None:
    fifth = 1 << 0 | 1 << 16 | 1 << 31
    weights = read(f16(2) + struct.pack("<I", fifth) + bytes([0x21] + [0] * 15), "Q5_0")
    assert weights[0] == 2 * (16 + 1 - 16)
    assert weights[16] == 2 * (16 + 2 - 16)
    assert weights[31] == 0
    assert weights[1] == -32


def test_q5_1() -> None:
    fifth = 1 << 1 | 1 << 17
    weights = read(f16(2, -1) + struct.pack("<I", fifth) + bytes([0, 0x43] + [0] * 14), "Q5_1")
    assert weights[0] == -1
    assert weights[1] == 2 * (16 + 3) - 1
    assert weights[17] == 2 * (16 + 4) - 1


def test_q8_0() -> None:
    assert read(f16(0.25) + bytes(range(112, 144)), "Q8_0") == [
        0.25 * (i - 256 if i > 127 else i) for i in range(112, 144)
    ]


SCALES = [1, 2, 3, 4, 17, 34, 51, 63]
MINS = [63, 62, 33, 16, 15, 8, 4, 1]


def six_bit_scales() -> bytes:
    """12 bytes: the first four of each whole, the others split 4 + 2."""
    return bytes(
        [SCALES[j] | (SCALES[j + 4] >> 4) << 6 for j in range(4)]
        + [MINS[j] | (MINS[j + 4] >> 4) << 6 for j in range(4)]
        + [(SCALES[j + 4] & 15) | (MINS[j + 4] & 15) << 4 for j in range(4)]
    )


def test_q4_k() -> None:
    levels = [(7 * i + i // 32) % 16 for i in range(256)]
    qs = bytearray(128)
    for i, level in enumerate(levels):
        pair, high, j = i // 64, i // 32 % 2, i % 32
        qs[32 * pair + j] |= level << 4 * high
    weights = read(f16(0.5, 0.25) + six_bit_scales() + qs, "Q4_K")
    assert weights == [
        0.5 * SCALES[i // 32] * level - 0.25 * MINS[i // 32] for i, level in enumerate(levels)
    ]


def test_q5_k() -> None:
    levels = [(11 * i + i // 32) % 32 for i in range(256)]
    qs, qh = bytearray(128), bytearray(32)
    for i, level in enumerate(levels):
        pair, high, j = i // 64, i // 32 % 2, i % 32
        qs[32 * pair + j] |= (level & 15) << 4 * high
        qh[j] |= (level >> 4) << i // 32
    weights = read(f16(0.5, 0.25) + six_bit_scales() + qh + qs, "Q5_K")
    assert weights == [
        0.5 * SCALES[i // 32] * level - 0.25 * MINS[i // 32] for i, level in enumerate(levels)
    ]


def test_q6_k() -> None:
    levels = [(13 * i + i // 64) % 64 for i in range(256)]
    scales = [-128, -64, -1, 0, 1, 2, 3, 127, 5, -5, 7, -7, 100, 50, 25, 12]
    ql, qh = bytearray(128), bytearray(64)
    for i, level in enumerate(levels):
        half, quarter, j = i // 128, i // 32 % 4, i % 32
        ql[64 * half + 32 * (quarter % 2) + j] |= (level & 15) << 4 * (quarter // 2)
        qh[32 * half + j] |= (level >> 4) << 2 * quarter
    weights = read(bytes(ql + qh) + struct.pack("16b", *scales) + f16(0.5), "Q6_K")
    assert weights == [0.5 * scales[i // 16] * (level - 32) for i, level in enumerate(levels)]


@pytest.mark.parametrize("type", ["Q4_K", "Q5_K"])
def test_scales_survive_both_ways(type: str) -> None:
    """A block that the format can hold exactly comes back as it was."""
    nmax = {"Q4_K": 15, "Q5_K": 31}[type]
    levels = np.arange(32) % (nmax + 1)
    d, dmin = np.float32(2.0**-10), np.float32(2.0**-9)
    x = d * np.multiply.outer(SCALES, levels) - dmin * np.array(MINS)[:, None]
    x = x.astype(np.float32).reshape(1, 256)
    back = dequantize(quantize(x, type), type, x.shape)
    assert np.abs(back - x).max() <= 0.06 * d * 63


def test_bf16_rounds_half_to_even() -> None:
    x = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF808000, 0x00008001], np.uint32)
    assert f32_to_bf16(x.view(np.float32)).tolist() == [0x3F80, 0x3F82, 0x3F81, 0xBF80, 0x0001]


def test_bf16_widens_exactly() -> None:
    every = np.arange(0x10000, dtype=np.uint16)
    assert np.array_equal(bf16_to_f32(every).view(np.uint32), every.astype(np.uint32) << 16)
