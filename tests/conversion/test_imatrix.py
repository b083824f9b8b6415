"""Whole files with an importance matrix beside llama.cpp's own quantizer, and bad matrices."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.imatrix import Entry, ImportanceMatrix, read_imatrix, write_imatrix
from tests.making.checkpoints import CASES, MOE, Case, make

FILE_TYPES = {"Q4_K_M": 15, "Q6_K": 18, "Q4_0": 2}  # enum llama_ftype, include/llama.h


def matrix_for(file: GGUFFile) -> ImportanceMatrix:
    """Made-up importance of every weight of a block, and of each expert; one expert unseen."""
    rng = np.random.default_rng(7)
    entries = {}
    for name, info in file.tensors.items():
        if not name.startswith("blk.") or len(info.shape) < 2 or "conv.weight" in name:
            continue
        experts = info.shape[0] if len(info.shape) == 3 else 1
        sums = rng.gamma(0.5, 100, (experts, info.shape[-1])).astype(np.float32)
        counts = rng.integers(100, 4000, experts)
        counts[-1] = counts[-1] if experts == 1 else 0
        sums[counts == 0] = 0
        entries[name] = Entry(sums, counts)
    return ImportanceMatrix(entries, ("corpus.txt",), 4, 512)


def llama_quantize(source: Path, target: Path, matrix: ImportanceMatrix, ftype: int) -> None:
    """Quantize by the library that llama-cpp-python installs, as llama-quantize calls it."""
    llama_cpp = pytest.importorskip("llama_cpp")
    values = {name.encode(): entry.values for name, entry in matrix.entries.items()}
    kind = llama_cpp.llama_model_imatrix_data
    data = (kind * (len(values) + 1))()
    for slot, (name, array) in zip(data, values.items(), strict=False):
        pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        slot.name, slot.data, slot.size = name, pointer, array.size
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 1
    params.imatrix = ctypes.cast(data, ctypes.POINTER(kind))
    done = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    assert done == 0


@pytest.mark.parametrize("name", ["LFM2-rows-of-256", "moe"])
@pytest.mark.parametrize("type", FILE_TYPES)
def test_weights_are_llama_quantizes(name: str, type: str, tmp_path: Path) -> None:
    if name == "moe":
        case = Case(
            {**MOE, "hidden_size": 256, "moe_intermediate_size": 256, "intermediate_size": 512}
        )
        source = make(case, tmp_path / "LFM2-Moe")
    else:
        source = make(CASES[name], tmp_path / name)
    whole = lfm2gguf.convert(source, tmp_path / "bf16.gguf", "BF16").files[0].path
    write_imatrix(matrix_for(GGUFFile.open(whole)), tmp_path / "m.gguf")
    matrix = read_imatrix(tmp_path / "m.gguf")
    llama_quantize(whole, tmp_path / "theirs.gguf", matrix, FILE_TYPES[type])
    lfm2gguf.convert(source, tmp_path / "ours.gguf", Recipe(type, imatrix=matrix))
    lfm2gguf.quantize(whole, tmp_path / "from_gguf.gguf", Recipe(type, imatrix=matrix))
    plain = lfm2gguf.convert(source, tmp_path / "plain.gguf", type).files[0].path
    theirs = GGUFFile.open(tmp_path / "theirs.gguf")
    ours, again = GGUFFile.open(tmp_path / "ours.gguf"), GGUFFile.open(tmp_path / "from_gguf.gguf")
    changed = 0
    for tensor in theirs.tensors:
        assert ours.tensors[tensor].type is theirs.tensors[tensor].type, tensor
        assert np.array_equal(ours.data(tensor), theirs.data(tensor)), tensor
        assert np.array_equal(again.data(tensor), theirs.data(tensor)), tensor
        changed += not np.array_equal(ours.data(tensor), GGUFFile.open(plain).data(tensor))
    assert changed


def test_the_file_says_what_weighed_it(wide: Path, bf16_gguf: Path, tmp_path: Path) -> None:
    write_imatrix(matrix_for(GGUFFile.open(bf16_gguf)), tmp_path / "m.gguf")
    matrix = read_imatrix(tmp_path / "m.gguf")
    file = lfm2gguf.convert(wide, tmp_path / "a.gguf", Recipe("Q4_K_M", imatrix=matrix)).files[0]
    opened = GGUFFile.open(file.path)
    keys = [key for key in opened.metadata if key.startswith("quantize.")]
    assert keys == [
        f"quantize.imatrix.{k}" for k in ("file", "dataset", "entries_count", "chunks_count")
    ]
    assert list(opened.metadata)[-4:] == keys
    assert opened.get("quantize.imatrix.file") == str(tmp_path / "m.gguf")[:127]
    assert opened.get("quantize.imatrix.dataset") == "corpus.txt"
    assert opened.get("quantize.imatrix.entries_count") == len(matrix.entries)
    assert opened.get("quantize.imatrix.chunks_count") == 4


def test_a_matrix_of_another_model_is_refused(wide: Path, tmp_path: Path) -> None:
    entry = Entry(np.ones((1, 32), np.float32), np.array([5]))
    with pytest.raises(OptionError, match=r"no entry for any tensor; it is of another model"):
        lfm2gguf.plan(wide, type=Recipe("Q4_K_M", imatrix=ImportanceMatrix({"x.weight": entry})))
    other = ImportanceMatrix({"blk.0.ffn_down.weight": entry})
    with pytest.raises(OptionError, match=r"blk\.0\.ffn_down\.weight has 32 values and the tensor"):
        lfm2gguf.plan(wide, type=Recipe("Q4_K_M", imatrix=other))
