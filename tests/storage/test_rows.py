"""Rows of every dtype come back as other readers of the same bytes see them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import gguf
import numpy as np
import pytest

from lfm2gguf.checkpoint.safetensors import read_header
from lfm2gguf.errors import TensorError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, quantize
from lfm2gguf.storage import GGML, SAFETENSORS, DType, StoredRows
from tests.making.checkpoints import write_raw_safetensors

AHEAD = 7  # bytes before the rows, so that nothing lies on a boundary


def stored(path: Path, dtype: DType, rows: np.ndarray) -> StoredRows:
    path.write_bytes(bytes(AHEAD) + rows.tobytes())
    n_per_row = rows.shape[1] * rows.itemsize // dtype.type_size * dtype.block_size
    return StoredRows(path, AHEAD, dtype, (len(rows), n_per_row))


@pytest.mark.parametrize("type", CODECS, ids=lambda type: type.name)
def test_each_type_is_widened_as_gguf_py_does_it(type: GGMLType, tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(0, 1, (6, 512)).astype(np.float32)
    data = quantize(weights, type, np.ones(512, np.float32))
    found = stored(tmp_path / "a", GGML[type], data)
    try:
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[type.name])
    except (KeyError, NotImplementedError):
        pytest.skip(f"gguf-py does not read {type.name}")
    np.testing.assert_array_equal(found.widened(), expected)
    np.testing.assert_array_equal(found.widened(2, 5), expected[2:5])
    np.testing.assert_array_equal(found.rows(1, 3), data[1:3])
    assert found.widened(4, 4).shape == (0, 512)


@pytest.mark.parametrize(("weights", "spans"), [(1, [(1, 2), (2, 3), (3, 4)]), (9, [(1, 4)])])
def test_tiles_are_the_rows(weights: int, spans: list[tuple[int, int]], tmp_path: Path) -> None:
    data = np.arange(15, dtype="<f4").reshape(5, 3)
    found = stored(tmp_path / "a", SAFETENSORS["F32"], data)
    assert list(found.spans(1, 4, weights)) == spans
    for (first, tile), (start, stop) in zip(found.tiles(1, 4, weights), spans, strict=True):
        assert first == start
        np.testing.assert_array_equal(tile.view("<f4"), data[start:stop])


def test_what_cannot_be_widened_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"a": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}
    write_raw_safetensors(path, json.dumps(header).encode(), bytes(16))
    with pytest.raises(UnsupportedError, match="'a' holds I64; only BF16, F16 and F32"):
        read_header(path)["a"].read()


def test_a_file_that_is_cut_or_removed_meanwhile(tmp_path: Path) -> None:
    found = stored(tmp_path / "a", SAFETENSORS["F32"], np.zeros((5, 3), "<f4"))
    (tmp_path / "a").write_bytes(bytes(AHEAD + 3 * 12))
    assert found.rows(0, 3).shape == (3, 12)
    with pytest.raises(TensorError, match="changed or removed meanwhile"):
        found.rows(2, 4)
    (tmp_path / "a").unlink()
    with pytest.raises(TensorError, match="changed or removed meanwhile"):
        found.widened(0, 1)


def test_what_is_expected_need_not_come(tmp_path: Path) -> None:
    """Asking the system to read ahead promises nothing, and complains of nothing."""
    path = tmp_path / "a.bin"
    rows = StoredRows(path, 4, GGML[GGMLType.F32], (3, 2))
    rows.expect(0, 3)  # no such file
    path.write_bytes(bytes(4 + 3 * 8))
    rows.expect(0, 3)
    rows.expect(2, 9)  # beyond its end
    assert rows.rows().nbytes == 24


def test_rows_travel_to_workers(tmp_path: Path) -> None:
    found = stored(tmp_path / "a", SAFETENSORS["BF16"], np.ones((2, 3), "<u2"))
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.widened(), found.widened())
