"""Judging rows by their bits and first blocks, against doing it the long way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lfm2gguf.doctor.scan import classify
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import bf16_to_f32, dequantize
from tests.quants.samples import bits

SPECIAL = [0, 1, 0x8000, 0x7F80, 0xFF80, 0x7FC1, 0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x3C00, 0xFFFF]
KINDS = {"BF16": lambda x: bf16_to_f32(x), "F16": lambda x: x.view(np.float16)}


def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row by row: not finite, zero, constant (of one sign of zero, as zero rows are apart)."""
    with np.errstate(all="ignore"):
        bad = ~np.isfinite(x).all(axis=1)
        return bad, (x == 0).all(axis=1), (x == x[:, :1]).all(axis=1) & ~bad


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(
    rows=arrays(
        np.uint16,
        st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 9, 32])),
        elements=st.one_of(st.sampled_from(SPECIAL), st.integers(0, 0xFFFF)),
        fill=st.sampled_from(SPECIAL),
    )
)
def test_sixteen_bits(kind: str, rows: np.ndarray) -> None:
    found = classify(rows.view(np.uint8), GGMLType[kind])
    bad, zero, constant = expected(KINDS[kind](rows).astype(np.float32))
    np.testing.assert_array_equal(found[0], bad)
    np.testing.assert_array_equal(found[1], zero)
    np.testing.assert_array_equal(found[2] & ~zero, constant & ~zero)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks(kind: str) -> None:
    """Random bytes, with some rows whose first block, or every block, is all zero bits."""
    type = GGMLType[kind]
    width = 2 * type.type_size
    data = bits(7, (64, width)).view(np.uint8).reshape(64, width, 8)[..., 3].copy()
    data[::4] = 0
    data[1::4, : type.type_size] = 0
    x = dequantize(data, type, (64, 2 * type.block_size))
    bad, zero, constant = expected(x)
    found = classify(data, type)
    np.testing.assert_array_equal(found[1], zero & ~found[0])
    np.testing.assert_array_equal(found[2] & ~zero, constant & ~zero & ~found[0])
    assert zero.sum() >= 16
    assert (found[0] >= bad).all()  # a scale that is not finite counts even if multiplied by 0
