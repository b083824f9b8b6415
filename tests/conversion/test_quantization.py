"""From a GGUF to smaller ones: what is kept, whoever wrote the file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert, quantize
from lfm2gguf.gguf_file import Value, ValueType
from tests.doctor.operations import Change, f32, rewrite
from tests.making.models import tiny_gguf

WEIGHTS = np.linspace(-1, 1, 3 * 512, dtype=np.float32).reshape(3, 512)


def foreign(path: Path, alignment: int | None = None, dtype: type = np.float32) -> Path:
    """A file of the gguf package's, with keys that nobody here knows."""
    writer = gguf.GGUFWriter(path, "lfm2")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_string("somebody.said", "something")
    writer.add_array("somebody.counted", [1, 2, 3])
    for name in ("blk.10.ffn_up.weight", "blk.9.ffn_up.weight", "output_norm.weight"):
        writer.add_tensor(name, WEIGHTS.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("alignment", [None, 8, 4096])
def test_any_alignment(tmp_path: Path, alignment: int | None) -> None:
    source = foreign(tmp_path / "in.gguf", alignment)
    (file,) = quantize(source, tmp_path / "out.gguf", "Q8_0")
    for tensor in gguf.GGUFReader(file.path).tensors:
        x = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.abs(x - WEIGHTS).max() < 0.01, tensor.name


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_kept_and_what_is_sorted(tmp_path: Path, dtype: type) -> None:
    source = foreign(tmp_path / "in.gguf", dtype=dtype)
    (file,) = quantize(source, tmp_path / "out.gguf", "Q4_K_S")
    written = GGUFFile.open(file.path)
    before = GGUFFile.open(source).metadata
    assert {k: v for k, v in written.metadata.items() if k in before} == before
    assert written.metadata["general.file_type"] == Value(ValueType.UINT32, 14)
    assert written.metadata["general.quantization_version"] == Value(ValueType.UINT32, 2)
    assert {t.name: t.type.name for t in written.tensors.values()} == {
        "output_norm.weight": "F16" if dtype is np.float16 else "F32",  # kept as it was
        "blk.9.ffn_up.weight": "Q4_K",
        "blk.10.ffn_up.weight": "Q4_K",
    }
    assert list(written.tensors)[1:] == ["blk.9.ffn_up.weight", "blk.10.ffn_up.weight"]


def test_several_types_and_names(bf16_gguf: Path, tmp_path: Path) -> None:
    files = quantize(bf16_gguf, tmp_path, ["q6_k", "Q4_0"])
    assert [file.path.name for file in files] == [
        "LFM2-rows-of-1.3M-256-Q6_K.gguf",
        "LFM2-rows-of-1.3M-256-Q4_0.gguf",
    ]


def test_again_what_is_quantized_already(wide: Path, tmp_path: Path) -> None:
    """From Q8_0 to Q8_0 nothing is lost: the scales and levels are found again."""
    source = convert(wide, tmp_path / "in.gguf", "Q8_0").files[0].path
    quantize(source, tmp_path / "out.gguf", "Q8_0", allow_requantize=True)
    assert (tmp_path / "out.gguf").read_bytes() == source.read_bytes()


def test_dimensions_of_one_as_llama_cpp_writes_them(tmp_path: Path) -> None:
    llama = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    rows = {f"x{n}.weight": f32(np.ones((n, 1, 32))) for n in (1, 2)}
    rows["x0.weight"] = f32(np.ones((1, 1)))
    source = rewrite(tiny_gguf(), tmp_path / "in.gguf", Change(tensors=rows))
    (file,) = quantize(source, tmp_path / "out.gguf", "Q8_0")
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = llama.LLAMA_FTYPE_MOSTLY_Q8_0
    theirs = tmp_path / "theirs.gguf"
    assert not llama.llama_model_quantize(bytes(source), bytes(theirs), settings)
    assert file.path.read_bytes() == theirs.read_bytes()
