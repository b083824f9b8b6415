"""What the functions accept, and what they say to the rest."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from lfm2gguf import quants
from lfm2gguf.errors import QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, codec, dequantize, find_nonfinite, validate

from .samples import needed, sample


def quantize(x: np.ndarray, type: GGMLType | str, given: np.ndarray | None = None) -> np.ndarray:
    """Quantize; with importance where the type cannot do without."""
    if given is None and type in CODECS:
        given = needed(GGMLType(type), x)
    return quants.quantize(x, type, given)


every_type = pytest.mark.parametrize("type", CODECS, ids=lambda type: type.name)


@every_type
def test_any_shape(type: GGMLType) -> None:
    x = sample("normal").reshape(2, 3, 4, 256)
    data = quantize(x, type)
    assert data.shape == (2, 3, 4, type.row_bytes(256))
    assert data.dtype == np.uint8
    assert np.array_equal(data.reshape(6, -1), quantize(sample("normal"), type))
    assert dequantize(data, type, x.shape).shape == x.shape


@every_type
def test_no_rows(type: GGMLType) -> None:
    assert quantize(np.empty((0, 256), np.float32), type).shape == (0, type.row_bytes(256))
    assert dequantize(np.empty(0, np.uint8), type, (0, 256)).shape == (0, 256)


@every_type
def test_strides_do_not_matter(type: GGMLType) -> None:
    x = np.repeat(sample("normal"), 2, axis=0)
    assert np.array_equal(quantize(x[::2], type), quantize(x[::2].copy(), type))
    assert np.array_equal(quantize(np.asfortranarray(x), type), quantize(x, type))


@every_type
def test_neither_input_is_written_to(type: GGMLType) -> None:
    x = sample("normal")
    x.flags.writeable = False
    data = quantize(x, type)
    data.flags.writeable = False
    dequantize(data, type, x.shape)


@every_type
def test_float16_is_widened(type: GGMLType) -> None:
    x = sample("normal").astype(np.float16)
    assert np.array_equal(quantize(x, type), quantize(x.astype(np.float32), type))


@every_type
def test_chunks_leave_no_trace(type: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantize(sample("ranges of sub-blocks"), type)
    back = dequantize(whole, type, (6, 1024))
    for row in (16, 48, 1 << 15):
        monkeypatch.setattr(codec, "ROW", row)
        assert np.array_equal(quantize(sample("ranges of sub-blocks"), type), whole)
        assert np.array_equal(dequantize(whole, type, (6, 1024)), back, equal_nan=True)


def test_names_in_any_case() -> None:
    x = sample("normal")
    assert np.array_equal(quantize(x, "q4_k"), quantize(x, GGMLType.Q4_K))
    theirs = gguf.GGMLQuantizationType.Q4_K
    assert np.array_equal(quants.quantize(x, theirs), quantize(x, "q4_k"))
    with pytest.raises(QuantizationError, match="no kernel for the tensor type 12"):
        quants.quantize(x, 12)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "near"), [("Q4K", "Q4_K"), ("q6-k", "Q6_K"), ("float16", "F16")])
def test_unknown_type(name: str, near: str) -> None:
    with pytest.raises(QuantizationError, match=f"did you mean {near}"):
        quantize(sample("normal"), name)


def test_type_without_kernel() -> None:
    with pytest.raises(QuantizationError, match="no kernel for the tensor type Q8_K"):
        quantize(sample("normal"), GGMLType.Q8_K)


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int32])
def test_other_dtypes(dtype: type) -> None:
    with pytest.raises(QuantizationError, match=f"cannot quantize {np.dtype(dtype)}"):
        quantize(np.zeros((1, 256), dtype), "Q8_0")


@pytest.mark.parametrize(("type", "n"), [("Q4_K", 128), ("Q6_K", 300), ("Q8_0", 16)])
def test_row_is_not_a_multiple_of_the_block(type: str, n: int) -> None:
    size = GGMLType[type].block_size
    for call in (
        lambda: quantize(np.zeros((2, n), np.float32), type),
        lambda: dequantize(np.zeros(10, np.uint8), type, (2, n)),
    ):
        with pytest.raises(QuantizationError, match=f"must be a multiple of {size}"):
            call()


def test_a_number_is_not_a_row() -> None:
    with pytest.raises(QuantizationError, match="must be a multiple"):
        quantize(np.float32(1).reshape(()), "F32")


@every_type
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_first_nonfinite_weight_is_named(type: GGMLType, value: float) -> None:
    x = np.ones((3, 5, 8192), np.float32)
    x[1, 4, 700] = x[2, 0, 0] = value
    assert find_nonfinite(x) == (1, 4, 700)
    with pytest.raises(QuantizationError, match=rf"weight \(1, 4, 700\) is {value}"):
        quantize(x, type)


def test_finite_weights() -> None:
    assert find_nonfinite(sample("any finite float")) is None


@every_type
def test_wrong_number_of_bytes(type: GGMLType) -> None:
    data = quantize(sample("normal"), type)
    with pytest.raises(QuantizationError, match=f"takes {data.nbytes} bytes"):
        dequantize(data[:-1], type, (6, 1024))


@pytest.mark.parametrize("type", ["F16", "Q4_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_scale_beyond_float16(type: str) -> None:
    x = np.resize(sample("uniform"), (3, 512))
    x[1, 256:] *= 2.0**40
    data = quantize(x, type)
    with pytest.raises(QuantizationError, match=f"too large for {type}"):
        validate(data, type)
    validate(data[0], type)


def test_bfloat16_rounds_up_to_infinity() -> None:
    x = np.full((1, 2), np.finfo(np.float32).max, np.float32)
    with pytest.raises(QuantizationError, match="from 0 on are too large for BF16"):
        validate(quantize(x, "BF16"), "BF16")
    validate(quantize(x, "F32"), "F32")


@pytest.mark.parametrize("shape", [(), (255,), (512,), (3, 256), (2, 2, 256), (2, 1)])
def test_importance_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(QuantizationError, match="one number a column is needed"):
        quantize(np.ones((2, 256), np.float32), "Q4_K", np.ones(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_importance_that_is_none(value: float) -> None:
    importance = np.ones(256, np.float32)
    importance[7] = value
    with pytest.raises(QuantizationError, match="finite and not negative"):
        quantize(np.ones((2, 256), np.float32), "Q4_K", importance)
