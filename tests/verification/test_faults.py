"""The gate passes every correct file and fails every planted fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType
from lfm2gguf.verification import LIMITS, Limits, Prepared, limits_for
from tests.doctor.operations import Change, rewrite
from tests.making.lanes import slow_but
from tests.making.verdicts import failed, judged
from tests.verification import faults

TYPES = slow_but(["Q8_0", "Q4_K_M"], list(LIMITS))


@pytest.mark.parametrize("type", TYPES)
def test_a_correct_file_passes(prepared: Prepared, files: dict[str, Path], type: str) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    result = judged(prepared, files[type], engine="llama.cpp")
    assert result.passed, result.failures
    assert result.engine == "llama.cpp"
    assert result.figures.kld.value < limits_for(type).max_kld / 2


@pytest.mark.parametrize("type", TYPES)
def test_numpy_alone_passes_it_too(prepared: Prepared, files: dict[str, Path], type: str) -> None:
    result = judged(prepared, files[type], engine="numpy")
    assert result.passed, result.failures
    if type in ("F32", "BF16"):  # the checkpoint is bf16: these files hold the same weights
        assert result.figures.kld.value < 1e-9


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["Q8_0", "Q4_K_M"]))
@pytest.mark.parametrize("fault", faults.IN_THE_CHECKPOINT)
def test_a_fault_is_caught(
    prepared: Prepared, example: Path, tmp_path: Path, fault: str, type: str
) -> None:
    path = faults.convert_with(faults.IN_THE_CHECKPOINT[fault], example, tmp_path, type)
    result = judged(prepared, path)
    assert not result.passed
    assert failed(result) & {"weights near the checkpoint's", "settings of the checkpoint"}
    # At eight bits the text alone shows it too. A norm that trained to nearly one is the
    # exception: only its weights tell.
    if type == "Q8_0" and fault != "a norm's weight left out":
        assert "mean KL divergence" in failed(result)


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["Q8_0", "Q4_K_M", "Q4_0"]))
@pytest.mark.parametrize("tensor", ["blk.1.ffn_gate.weight", "token_embd.weight"])
def test_a_flipped_byte_of_a_scale_is_caught(
    prepared: Prepared, files: dict[str, Path], tmp_path: Path, type: str, tensor: str
) -> None:
    path = tmp_path / files[type].name
    kind = GGUFFile.open(files[type]).tensors[tensor].type
    for name, byte in faults.SCALE_BYTES[kind].items():
        if name == "low byte of d":  # its eight bits are the last of eleven: see the next test
            continue
        shutil.copy(files[type], path)
        faults.flip(path, tensor, 100, byte)
        result = judged(prepared, path)
        assert not result.passed, name
        failed = next(gate for gate in result.failures if gate.name.startswith("weights"))
        assert tensor in failed.detail


def test_the_smallest_scale_fault_that_is_still_caught(
    prepared: Prepared, files: dict[str, Path], tmp_path: Path
) -> None:
    """One scale of 32 Q4_K weights, 48 of 63: 32 is caught, 49 is not."""
    path = tmp_path / files["Q4_K_M"].name
    caught = {}
    for bits in (0x10, 0x01):
        shutil.copy(files["Q4_K_M"], path)
        faults.flip(path, "blk.1.ffn_gate.weight", 100, 4, bits)
        caught[bits] = not judged(prepared, path).passed
    assert caught == {0x10: True, 0x01: False}


def test_not_a_number_in_the_file_fails(
    prepared: Prepared, files: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(files["BF16"], tmp_path))
    info = GGUFFile.open(path).tensors["blk.1.ffn_up.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset)
        file.write(b"\xff\x7f")  # bf16 NaN
    result = judged(prepared, path)
    assert {"finite logits", "mean KL divergence"} <= failed(result)
    assert result.figures.not_finite == result.figures.tokens


def test_three_way_names_the_quantization(
    prepared: Prepared, example: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    good = judged(prepared, files["Q8_0"], engine="llama.cpp", three_way=True)
    assert good.passed, good.failures
    assert good.culprit == ""
    path = faults.convert_with(faults.shifted_embedding, example, tmp_path, "Q8_0")
    assert judged(prepared, path, engine="llama.cpp", three_way=True).culprit == "quantization"


def test_three_way_names_the_runtime(
    prepared: Prepared, files: dict[str, Path], tmp_path: Path
) -> None:
    """A key that llama.cpp heeds and the file's other reader does not: positions are scaled."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    scaled = {
        "lfm2.rope.scaling.type": Value(ValueType.STRING, "linear"),
        "lfm2.rope.scaling.factor": Value(ValueType.FLOAT32, 8.0),
    }
    path = rewrite(files["Q8_0"], tmp_path / files["Q8_0"].name, Change(scaled))
    assert judged(prepared, path).passed
    result = judged(prepared, path, engine="llama.cpp", three_way=True)
    assert not result.passed
    assert result.culprit == "runtime"


def test_a_file_of_another_model_cannot_be_judged(
    prepared: Prepared, files: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(files["Q8_0"], tmp_path))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.0.ffn_norm.weight", b"blk.0.ffn_morn.weight"))
    with pytest.raises(GGUFError, match="cannot be judged"):
        judged(prepared, path)


def test_limits_can_be_set_one_by_one() -> None:
    default = limits_for("Q4_K_M")
    assert Limits.choose("Q4_K_M", max_kld=1.0) == Limits(
        default.max_ppl_increase, 1.0, default.min_top1
    )
    asked = {"max_ppl_increase": 0.1, "max_kld": 0.2, "min_top1": 0.3}
    assert Limits.choose("IQ2_XXS", **asked) == Limits(**asked)
    with pytest.raises(OptionError, match="no default limits for IQ2_XXS"):
        Limits.choose("IQ2_XXS", max_kld=1.0)


def test_the_public_function_is_the_same(example: Path, files: dict[str, Path]) -> None:
    result = lfm2gguf.verify(files["Q6_K"], example, chunks=2, engine="numpy")
    assert result.passed
    assert result.figures.tokens == 2 * 255
    assert not lfm2gguf.verify(
        files["Q6_K"], example, chunks=2, engine="numpy", max_kld=1e-5
    ).passed


def test_a_gguf_can_be_the_reference(files: dict[str, Path]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    result = lfm2gguf.verify(files["Q8_0"], files["BF16"], chunks=2, engine="numpy")
    assert result.passed
    with pytest.raises(OptionError, match="is quantized"):
        lfm2gguf.verify(files["Q8_0"], files["Q6_K"])
