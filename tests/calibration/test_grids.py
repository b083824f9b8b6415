"""Blocks in pieces: what the type's decoder says of them, and back without a changed bit."""

from __future__ import annotations

import numpy as np
import pytest

from lfm2gguf.calibration.grids import GRIDS, put_together, take_apart, values
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize

COLUMNS = 512


def rows(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((24, COLUMNS)) * rng.gamma(2, 1, (24, 1))).astype(np.float32)


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_pieces_are_what_the_decoder_reads(type: GGMLType) -> None:
    data = quantize(rows(1), type)
    levels = take_apart(type, data)
    np.testing.assert_array_equal(
        values(GRIDS[type], levels).T, dequantize(data, type, (24, COLUMNS))
    )


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_bytes_come_back(type: GGMLType) -> None:
    data = quantize(rows(2), type)
    np.testing.assert_array_equal(put_together(type, take_apart(type, data)), data)


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_any_bits_come_back(type: GGMLType) -> None:
    """Not only what a quantizer writes: every scale and level, with finite halves."""
    data = np.random.default_rng(3).integers(0, 256, quantize(rows(1), type).shape, np.uint8)
    blocks = data.reshape(-1).view(CODECS[type].layout)
    for field in CODECS[type].scales:
        blocks[field] = 1
    levels = take_apart(type, data)
    np.testing.assert_array_equal(put_together(type, levels), data)
    np.testing.assert_array_equal(
        values(GRIDS[type], levels).T, dequantize(data, type, (24, COLUMNS))
    )


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_the_nearest_code(type: GGMLType) -> None:
    codes = GRIDS[type].codes
    x = np.random.default_rng(4).uniform(codes[0] - 3, codes[-1] + 3, 1000).astype(np.float32)
    found = np.abs(x - codes[GRIDS[type].nearest(x)])
    np.testing.assert_array_equal(found, np.abs(x[:, None] - codes).min(axis=1))
