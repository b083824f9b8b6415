"""The gate passes every correct file and fails every planted fault."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf import Progress
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType
from lfm2gguf.verification import (
    TYPE_LIMITS,
    Engine,
    Limits,
    Material,
    Session,
    TextLimits,
    verify,
)
from tests.doctor.operations import Change, rewrite
from tests.making.lanes import slow_but
from tests.making.verdicts import failed, judged
from tests.verification import faults

TYPES = slow_but(["Q8_0", "Q4_K_M"], list(TYPE_LIMITS))


@pytest.mark.parametrize("type", TYPES)
def test_a_correct_file_passes(session: Session, files: dict[str, Path], type: str) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    result = judged(session, files[type], engine="llama.cpp")
    assert result.passed, result.failures
    assert result.engine == "llama.cpp"
    assert result.figures.kld.value < TYPE_LIMITS[type].text.max_kld / 2


@pytest.mark.parametrize("type", TYPES)
def test_numpy_alone_passes_it_too(session: Session, files: dict[str, Path], type: str) -> None:
    result = judged(session, files[type], engine="numpy")
    assert result.passed, result.failures
    if type in ("F32", "BF16"):  # the checkpoint is bf16: these files hold the same weights
        assert result.figures.kld.value < 1e-9


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["Q8_0", "Q4_K_M"]))
@pytest.mark.parametrize("fault", faults.IN_THE_CHECKPOINT)
def test_a_fault_is_caught(
    session: Session, example: Path, tmp_path: Path, fault: str, type: str
) -> None:
    path = faults.convert_with(faults.IN_THE_CHECKPOINT[fault], example, tmp_path, type)
    result = judged(session, path)
    assert not result.passed
    assert failed(result) & {"weights near the checkpoint's", "settings of the checkpoint"}
    # At eight bits the text alone shows it too. A norm that trained to nearly one is the
    # exception: only its weights tell.
    if type == "Q8_0" and fault != "a norm's weight left out":
        assert "mean KL divergence" in failed(result)


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["Q8_0", "Q4_K_M", "Q4_0"]))
@pytest.mark.parametrize("tensor", ["blk.1.ffn_gate.weight", "token_embd.weight"])
def test_a_flipped_byte_of_a_scale_is_caught(
    session: Session, files: dict[str, Path], tmp_path: Path, type: str, tensor: str
) -> None:
    path = tmp_path / files[type].name
    kind = GGUFFile.open(files[type]).tensors[tensor].type
    for name, byte in faults.SCALE_BYTES[kind].items():
        if name == "low byte of d":  # its eight bits are the last of eleven: see the next test
            continue
        shutil.copy(files[type], path)
        faults.flip(path, tensor, 100, byte)
        result = judged(session, path)
        assert not result.passed, name
        failed = next(gate for gate in result.failures if gate.name.startswith("weights"))
        assert tensor in failed.detail


def test_the_smallest_scale_fault_that_is_still_caught(
    session: Session, files: dict[str, Path], tmp_path: Path
) -> None:
    """One scale of 32 Q4_K weights, 48 of 63: 32 is caught, 49 is not."""
    path = tmp_path / files["Q4_K_M"].name
    caught = {}
    for bits in (0x10, 0x01):
        shutil.copy(files["Q4_K_M"], path)
        faults.flip(path, "blk.1.ffn_gate.weight", 100, 4, bits)
        caught[bits] = not judged(session, path).passed
    assert caught == {0x10: True, 0x01: False}


def test_not_a_number_in_the_file_fails(
    session: Session, files: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(files["BF16"], tmp_path))
    info = GGUFFile.open(path).tensors["blk.1.ffn_up.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset)
        file.write(b"\xff\x7f")  # bf16 NaN
    result = judged(session, path)
    assert {"finite logits", "mean KL divergence"} <= failed(result)
    assert result.figures.not_finite == result.figures.tokens


def test_three_way_names_the_quantization(
    session: Session, example: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    good = judged(session, files["Q8_0"], engine="llama.cpp", three_way=True)
    assert good.passed, good.failures
    assert good.culprit == ""
    path = faults.convert_with(faults.shifted_embedding, example, tmp_path, "Q8_0")
    assert judged(session, path, engine="llama.cpp", three_way=True).culprit == "quantization"


def test_three_way_names_the_runtime(
    session: Session, files: dict[str, Path], tmp_path: Path
) -> None:
    """A key that llama.cpp heeds and the file's other reader does not: positions are scaled."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    scaled = {
        "lfm2.rope.scaling.type": Value(ValueType.STRING, "linear"),
        "lfm2.rope.scaling.factor": Value(ValueType.FLOAT32, 8.0),
    }
    path = rewrite(files["Q8_0"], tmp_path / files["Q8_0"].name, Change(scaled))
    assert judged(session, path).passed
    result = judged(session, path, engine="llama.cpp", three_way=True)
    assert not result.passed
    assert result.culprit == "runtime"


def test_a_file_of_another_model_cannot_be_judged(
    session: Session, files: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(files["Q8_0"], tmp_path))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.0.ffn_norm.weight", b"blk.0.ffn_morn.weight"))
    with pytest.raises(GGUFError, match="cannot be judged"):
        judged(session, path)


def test_limits_can_be_set_one_by_one() -> None:
    default = TYPE_LIMITS["Q4_K_M"].text
    assert Limits(max_kld=1.0).of_text("Q4_K_M") == TextLimits(
        default.max_ppl_increase, 1.0, default.min_top1
    )
    asked = {"max_ppl_increase": 0.1, "max_kld": 0.2, "min_top1": 0.3}
    assert Limits(**asked).of_text("NVFP4") == TextLimits(**asked)
    with pytest.raises(OptionError, match="no default limits for NVFP4"):
        Limits(max_kld=1.0).of_text("NVFP4")


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_a_limit_that_nothing_can_be_held_to(name: str) -> None:
    with pytest.raises(OptionError, match=rf"{name} \(--{name.replace('_', '-')}\) is not a num"):
        Limits(**{name: float("nan")})
    if name.startswith("min_"):  # 90 for 90 % would fail every file
        with pytest.raises(OptionError, match=r"is 90: a share is 1 at most, such as 0\.9 or 90%"):
            Limits(**{name: 90})
    Limits(**{name: 1.0})


def test_one_file_or_many(example: Path, files: dict[str, Path]) -> None:
    """The public function gives one result for a path, and a list for a list of them."""
    material, engine = Material(chunks=2), Engine("numpy")
    result = lfm2gguf.verify(files["Q6_K"], example, material=material, engine=engine)
    assert result.passed
    assert result.figures.tokens == 2 * 255
    limits = Limits(max_kld=1e-5)
    results = verify(
        [files["Q6_K"], files["Q8_0"]], example, material=material, limits=limits, engine=engine
    )
    assert [(found.type, found.passed) for found in results] == [("Q6_K", False), ("Q8_0", False)]


def test_a_session_computes_its_reference_once(example: Path, files: dict[str, Path]) -> None:
    seen: list[Progress] = []
    material = Material(chunks=1, cache=False)
    with Session(example, material, progress=seen.append) as session:
        assert not seen
        for type in ("Q8_0", "Q6_K"):
            assert session.judge(files[type], engine=Engine("numpy")).passed
    ended = [progress.stage for progress in seen if progress.done == progress.total]
    assert ended.count("reference") == 1
    assert ended.count("dequantized file") == ended.count("comparison") == 2
    assert all(progress.unit in ("layers", "sequences") for progress in seen)


def test_a_gguf_can_be_the_reference(files: dict[str, Path]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    result = lfm2gguf.verify(
        files["Q8_0"], files["BF16"], material=Material(chunks=2), engine=Engine("numpy")
    )
    assert result.passed
    with pytest.raises(OptionError, match="is quantized"):
        lfm2gguf.verify(files["Q8_0"], files["Q6_K"])
