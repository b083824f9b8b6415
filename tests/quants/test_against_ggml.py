"""The kernels beside ggml's C: the same bytes from the same weights, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lfm2gguf.errors import QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize, validate
from lfm2gguf.quants.codec import c_arithmetic
from lfm2gguf.quants.search import scale_and_min

from . import oracle
from .samples import SAMPLES, sample

pytestmark = oracle.needs_ggml
every_type = pytest.mark.parametrize("type", CODECS, ids=lambda type: type.name)


def assert_same_bytes(x: np.ndarray, type: GGMLType) -> None:
    ours, ggml = quantize(x, type), oracle.quantize(x, type)
    size = type.type_size
    wrong = (ours.reshape(-1, size) != ggml.reshape(-1, size)).any(axis=1).nonzero()[0]
    first = x.reshape(-1, type.block_size)[wrong[:1]].tolist()
    assert not len(wrong), f"{len(wrong)} blocks differ, first {wrong[:1]}: {first}"


def same_floats(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@every_type
@pytest.mark.parametrize("name", SAMPLES)
def test_bytes(name: str, type: GGMLType) -> None:
    assert_same_bytes(sample(name), type)


@every_type
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 255, 256, 257, 513])
def test_any_number_of_blocks(blocks: int, type: GGMLType) -> None:
    x = np.resize(sample("bf16"), (blocks, type.block_size))
    assert_same_bytes(x, type)
    assert_same_bytes(x.reshape(1, -1), type)


@every_type
def test_every_float16_scale(type: GGMLType) -> None:
    """Blocks whose largest weight runs through the range of float16, the edges included."""
    top = np.ldexp(1.0, np.arange(-30, 24))[:, None] * np.linspace(1, 2, 64, endpoint=False)
    x = np.resize(sample("uniform"), (top.size, 256)) * top.reshape(-1, 1)
    assert_same_bytes(x.astype(np.float32), type)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Values close together, or of one sign, or repeated, are rarer than hypothesis's own.
PALETTES = st.lists(FINITE, min_size=1, max_size=5).flatmap(
    lambda values: hnp.arrays(np.float32, (2, 256), elements=st.sampled_from(values))
)


@every_type
@settings(max_examples=60, deadline=None)
@given(x=st.one_of(PALETTES, hnp.arrays(np.float32, (2, 256), elements=FINITE, fill=FINITE)))
def test_bytes_of_anything(type: GGMLType, x: np.ndarray) -> None:
    assert_same_bytes(x, type)


@every_type
@settings(max_examples=60, deadline=None)
@given(
    steps=hnp.arrays(np.int8, (2, 256), elements=st.integers(-20, 20)),
    unit=st.floats(width=32, min_value=2.0**-140, max_value=2.0**110),
    offset=st.integers(-100, 100),
)
def test_bytes_of_evenly_spaced_weights(
    type: GGMLType, steps: np.ndarray, unit: float, offset: int
) -> None:
    """Ties everywhere: in rounding, for the largest weight, between steps of the search."""
    assert_same_bytes((steps + np.float32(offset)) * np.float32(unit), type)


@every_type
def test_weights_of_any_bytes(type: GGMLType) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (500, type.type_size), np.uint8)
    shape = (500, type.block_size)
    ggml = oracle.dequantize(data, type, shape)
    ours = dequantize(data, type, shape)
    nan = np.isnan(ggml)  # whose payload is of no concern
    assert np.array_equal(nan, np.isnan(ours))
    assert same_floats(ours[~nan], ggml[~nan])


@every_type
@pytest.mark.parametrize("name", SAMPLES)
def test_validation_agrees(name: str, type: GGMLType) -> None:
    data = quantize(sample(name), type)
    if oracle.is_valid(data, type):
        validate(data, type)
        assert same_floats(
            dequantize(data, type, (6, 1024)), oracle.dequantize(data, type, (6, 1024))
        )
    else:
        with pytest.raises(QuantizationError, match="too large for"):
            validate(data, type)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("nmax", "rmin", "nstep"), [(15, -1.0, 20), (31, -0.5, 15)])
def test_the_careful_search_agrees_on_ordinary_columns(
    name: str, nmax: int, rmin: float, nstep: int
) -> None:
    """Which columns are ordinary is a claim: the quick search and the exact one, bit for bit."""
    x = np.ascontiguousarray(sample(name).reshape(-1, 32).T)
    levels, *work = np.empty((5, *x.shape), np.float32)
    with c_arithmetic():
        scale, low, ordinary = scale_and_min(x, work, nmax, rmin, nstep)
        exact_scale, exact_low, _ = scale_and_min(x, work, nmax, rmin, nstep, levels)
    assert same_floats(scale[ordinary], exact_scale[ordinary])
    assert same_floats(low[ordinary], exact_low[ordinary])


def test_ordinary_weights_take_the_quick_search() -> None:
    x = np.ascontiguousarray(sample("bf16").reshape(-1, 32).T)
    with c_arithmetic():
        ordinary = scale_and_min(x, list(np.empty((4, *x.shape), np.float32)), 15, -1.0, 20)[2]
    assert ordinary.all()
