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
from lfm2gguf.quants.kquants import weights_of_32
from lfm2gguf.quants.search import Search, scale_and_min
from tests.making.lanes import WEEKLY

from . import oracle
from .samples import IMPORTANCE, SAMPLES, ends_ggml, importance, names, sample, uses_grid

KINDS = [None, *IMPORTANCE]

pytestmark = oracle.needs_ggml


def marks(type: GGMLType, usual: bool = False) -> tuple[pytest.MarkDecorator, ...]:
    """Grids are searched slowly: usual weights in the slow lane, the others once a week."""
    if not uses_grid(type):
        return ()
    return (pytest.mark.slow,) if usual else WEEKLY


every_type = pytest.mark.parametrize(
    "type", [pytest.param(type, marks=marks(type)) for type in CODECS], ids=lambda type: type.name
)


def assert_same_bytes(x: np.ndarray, type: GGMLType, kind: str | None = None) -> None:
    """Of weights with or without importance: that of the samples called ``kind``."""
    if kind is None and CODECS[type].needs_importance:
        kind = "uniform"
    given = importance(kind, x.shape[-1])
    ours, ggml = quantize(x, type, given), oracle.quantize(x, type, given)
    size = type.type_size
    wrong = (ours.reshape(-1, size) != ggml.reshape(-1, size)).any(axis=1).nonzero()[0]
    first = x.reshape(-1, type.block_size)[wrong[:1]].tolist()
    assert not len(wrong), f"{len(wrong)} blocks differ, first {wrong[:1]}: {first}"


def same_floats(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


every_sample = pytest.mark.parametrize(
    ("type", "name"),
    [
        pytest.param(type, name, marks=marks(type, name == "bf16"))
        for type in CODECS
        for name in names(type)
    ],
    ids=lambda value: getattr(value, "name", value),
)


@every_sample
def test_bytes(name: str, type: GGMLType) -> None:
    for kind in KINDS:
        assert_same_bytes(sample(name), type, kind)


@every_type
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 255, 256, 257, 513])
def test_any_number_of_blocks(blocks: int, type: GGMLType) -> None:
    x = np.resize(sample("bf16"), (blocks, type.block_size))
    for kind in (None, "uniform"):
        assert_same_bytes(x, type, kind)
        assert_same_bytes(x.reshape(1, -1), type, kind)


@every_type
def test_every_float16_scale(type: GGMLType) -> None:
    """Blocks whose largest weight runs through the range of float16, the edges included."""
    top = np.ldexp(1.0, np.arange(-30, 24))[:, None] * np.linspace(1, 2, 64, endpoint=False)
    x = np.resize(sample("uniform"), (top.size, 256)) * top.reshape(-1, 1)
    for kind in (None, "heavy tails"):
        assert_same_bytes(x.astype(np.float32), type, kind)


def anything(largest: float) -> st.SearchStrategy[np.ndarray]:
    """Two blocks of any numbers up to ``largest``.

    Values close together, or of one sign, or repeated, are rarer than hypothesis's own.
    """
    numbers = st.floats(-largest, largest, width=32)
    palettes = st.lists(numbers, min_size=1, max_size=5).flatmap(
        lambda values: hnp.arrays(np.float32, (2, 256), elements=st.sampled_from(values))
    )
    return st.one_of(palettes, hnp.arrays(np.float32, (2, 256), elements=numbers, fill=numbers))


ANYTHING = anything(float(np.finfo(np.float32).max))
MODERATE = anything(2.0**25)


@every_type
@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_bytes_of_anything(type: GGMLType, data: st.DataObject, kind: str | None) -> None:
    x = data.draw(MODERATE if uses_grid(type) else ANYTHING)
    assert_same_bytes(x, type, kind)


@every_type
@settings(max_examples=60, deadline=None)
@given(
    steps=hnp.arrays(np.int8, (2, 256), elements=st.integers(-20, 20)),
    unit=st.floats(width=32, min_value=2.0**-140, max_value=2.0**110),
    offset=st.integers(-100, 100),
    kind=st.sampled_from(KINDS),
)
def test_bytes_of_evenly_spaced_weights(
    type: GGMLType, steps: np.ndarray, unit: float, offset: int, kind: str | None
) -> None:
    """Ties everywhere: in rounding, for the largest weight, between steps of the search."""
    unit = min(unit, 2.0**18) if uses_grid(type) else unit
    assert_same_bytes((steps + np.float32(offset)) * np.float32(unit), type, kind)


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


@pytest.mark.parametrize(
    ("type", "name"),
    [(type, name) for type in CODECS for name in SAMPLES if ends_ggml(type, name)],
    ids=lambda value: getattr(value, "name", value),
)
def test_weights_whose_errors_overflow(type: GGMLType, name: str) -> None:
    """ggml ends the program (GGML_ASSERT) on each of these samples."""
    kind = "uniform" if CODECS[type].needs_importance or type is not GGMLType.IQ1_M else None
    with pytest.raises(QuantizationError, match="too large: the errors' squares overflow"):
        quantize(sample(name), type, importance(kind))


@pytest.mark.weekly
@pytest.mark.parametrize("type", [GGMLType.IQ1_S, GGMLType.IQ1_M], ids=lambda type: type.name)
@pytest.mark.parametrize("largest", [1e30, 3e38])
def test_importance_whose_sums_overflow(type: GGMLType, largest: float) -> None:
    """IQ1's scales are quotients of such sums; what ggml makes of them is its own affair."""
    x = sample("normal")
    given = np.ones(x.shape[-1], np.float32)
    given[:16] = largest
    given[512:] = largest
    assert np.array_equal(quantize(x, type, given), oracle.quantize(x, type, given))


@every_sample
def test_validation_agrees(name: str, type: GGMLType) -> None:
    data = quantize(sample(name), type, importance("uniform"))
    if oracle.is_valid(data, type):
        validate(data, type)
        assert same_floats(
            dequantize(data, type, (6, 1024)), oracle.dequantize(data, type, (6, 1024))
        )
    else:
        with pytest.raises(QuantizationError, match="too large for"):
            validate(data, type)


SEARCHES = [
    Search(15, -1.0, 0.1, 20),
    Search(31, -0.5, 0.1, 15),
    Search(15, -0.9, 0.05, 36),
    Search(3, -0.5, 0.1, 15, absolute=True),
]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("search", SEARCHES)
def test_the_careful_search_agrees_on_ordinary_columns(name: str, search: Search) -> None:
    """Which columns are ordinary is a claim: the quick search and the exact one, bit for bit."""
    x = np.ascontiguousarray(sample(name).reshape(-1, 32).T)
    w, levels, *work = np.empty((5, *x.shape), np.float32)
    with c_arithmetic():
        weights_of_32(x, w)
        scale, low, ordinary = scale_and_min(x, w, work, search)
        exact_scale, exact_low, _ = scale_and_min(x, w, work, search, levels, careful=True)
    assert same_floats(scale[ordinary], exact_scale[ordinary])
    assert same_floats(low[ordinary], exact_low[ordinary])


def test_ordinary_weights_take_the_quick_search() -> None:
    x = np.ascontiguousarray(sample("bf16").reshape(-1, 32).T)
    w, *work = np.empty((4, *x.shape), np.float32)
    with c_arithmetic():
        weights_of_32(x, w)
        ordinary = scale_and_min(x, w, work, SEARCHES[0])[2]
    assert ordinary.all()


@every_type
@pytest.mark.parametrize("shape", [(1024,), (6, 1024), (1, 1024), (3, 1, 1024)])
def test_importance_of_experts(type: GGMLType, shape: tuple[int, ...]) -> None:
    """Of all rows, of each, or of those of each expert: what ggml makes of them one by one."""
    x = sample("bf16").reshape(3, 2, 1024) if len(shape) == 3 else sample("bf16")
    given = np.resize(importance("uniform", 6 * 1024), shape).astype(np.float32)
    ours = quantize(x, type, given).reshape(6, -1)
    rows = np.broadcast_to(given, x.shape).reshape(6, -1)
    for i, row in enumerate(x.reshape(6, -1)):
        assert np.array_equal(ours[i], oracle.quantize(row[None], type, rows[i])[0])


def test_exponents_of_mxfp4() -> None:
    """A block's largest weight close to every power of two, where log2f rounds up too early."""
    near = (np.arange(1, 255)[:, None] << 23) + np.arange(-200, 20)
    peak = near[(near > 0) & (near < 0x7F800000)].astype(np.uint32).view(np.float32)
    x = np.resize(sample("uniform"), (peak.size, 32)) * peak[:, None]
    x[:, 7] = peak
    assert_same_bytes(x, GGMLType.MXFP4)


@every_type
def test_signs_of_zeros_that_alone_weigh(type: GGMLType) -> None:
    """Blocks of -0 but for a few weights, which are of no importance."""
    x = np.full((3, 4096), -0.0, np.float32)
    x[:, 7::32] = np.float32([-1e3, 1e3, -1e-3])[:, None]
    given = np.random.default_rng(0).random(4096, np.float32)
    given[7::32] = 0
    assert np.array_equal(quantize(x, type, given), oracle.quantize(x, type, given))
