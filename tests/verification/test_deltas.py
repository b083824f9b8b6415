"""A merged file must carry its adapter, all of it and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import OptionError
from lfm2gguf.verification import TYPE_LIMITS, Engine, Material, Session, open_reference
from lfm2gguf.verification.report.data import dumps
from lfm2gguf.verification.report.markdown import markdown
from tests.making import multimodal
from tests.making.adapters import GGUF_CASES, PREFIX, linear, make_adapter, make_base
from tests.making.checkpoints import write_json, write_safetensors
from tests.making.lanes import slow_but
from tests.making.verdicts import failed, judged
from tests.verification.faults import Editor
from tests.verification.test_command import run, start

EACH, ALL, OTHERS = (
    "departure from the adapter's delta, worst tensor",
    "departure from the adapter's delta, all tensors",
    "other tensors are the base's",
)
TARGETS = ("conv.in_proj", "self_attn.q_proj", "feed_forward.w2")
RANK, SIZE = 8, 0.03  # the deltas' size relative to the weights', as of common fine-tunes


def write_adapter(base: Path, folder: Path, seed: int = 0, alpha: float = 16) -> Path:
    """An adapter of the example; its ``alpha`` may say another scale than the factors mean."""
    rng, tensors = np.random.default_rng(seed), {}
    checkpoint = Checkpoint.open(base)
    for name in checkpoint.tensors:
        module = name.removesuffix(".weight")
        if not module.endswith(TARGETS):
            continue
        weight = checkpoint.read(name)
        a = rng.standard_normal((RANK, weight.shape[1])).astype(np.float32)
        b = rng.standard_normal((len(weight), RANK)).astype(np.float32)
        b *= SIZE * np.linalg.norm(weight) / np.linalg.norm(2 * b @ a)
        tensors |= {
            f"{PREFIX}{module}.lora_A.weight": a,
            f"{PREFIX}{module}.lora_B.weight": b,
        }
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": alpha, "bias": "none",
                "target_modules": [name.rsplit(".", 1)[-1] for name in TARGETS]}  # fmt: skip
    write_json(folder / "adapter_config.json", settings)
    write_safetensors(folder / "adapter_model.safetensors", tensors, "F32")
    return folder


ONE_CHUNK = Material(chunks=1, cache=False)


@pytest.fixture(scope="module")
def adapter(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(example, tmp_path_factory.mktemp("adapter") / "tune")


@pytest.fixture(scope="module")
def reference(example: Path, adapter: Path) -> Session:
    return Session(open_reference(example, lora=adapter), Material(chunks=2))


@pytest.mark.parametrize("type", slow_but(["Q8_0"], list(TYPE_LIMITS)))
def test_a_merged_file_passes(
    type: str, reference: Session, example: Path, adapter: Path, tmp_path: Path
) -> None:
    result = judged(reference, convert(example, tmp_path, type, adapter))
    assert result.passed, result.failures
    assert {EACH, ALL, OTHERS} <= {gate.name for gate in result.gates}
    assert {delta.name.split(".", 2)[2] for delta in result.deltas} == {
        "shortconv.in_proj.weight",
        "attn_q.weight",
        "ffn_down.weight",
    }
    for delta in result.deltas:
        assert abs(delta.share - 1) <= 3 * delta.noise + 1e-5  # what is foretold holds, by far
        assert 0.8 * SIZE < delta.size < 1.2 * SIZE


def convert(example: Path, folder: Path, type: str, adapter: Path | None) -> Path:
    target = folder / f"{type}.gguf"
    return lfm2gguf.convert(example, target, type, lora=adapter, jobs=1).files[0].path


OTHER_ADAPTERS: dict[str, Callable[[Path, Path], Path | None]] = {
    "none": lambda base, folder: None,
    "half its alpha": lambda base, folder: write_adapter(base, folder, alpha=8),
    "twice its alpha": lambda base, folder: write_adapter(base, folder, alpha=32),
    "its negative": lambda base, folder: write_adapter(base, folder, alpha=-16),
    "another": lambda base, folder: write_adapter(base, folder, seed=1),
}


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["BF16", "Q8_0", "Q4_K_M"]))
@pytest.mark.parametrize("what", OTHER_ADAPTERS)
def test_another_delta_is_caught(
    what: str, type: str, reference: Session, example: Path, tmp_path: Path
) -> None:
    other = OTHER_ADAPTERS[what](example, tmp_path / "other")
    result = judged(reference, convert(example, tmp_path, type, other))
    assert {EACH, ALL} <= failed(result)


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K_M"])
def test_a_tensor_without_its_delta_is_caught(
    type: str, reference: Session, example: Path, adapter: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    write_json(
        part / "adapter_config.json", json.loads((adapter / "adapter_config.json").read_text())
    )
    tensors = read_all(adapter)
    left_out = next(name for name in tensors if "feed_forward.w2" in name).rsplit(".lora", 1)[0]
    kept = {name: x for name, x in tensors.items() if not name.startswith(left_out)}
    assert len(kept) == len(tensors) - 2
    write_safetensors(part / "adapter_model.safetensors", kept, "F32")
    result = judged(reference, convert(example, tmp_path, type, part))
    gate = next(gate for gate in result.failures if gate.name == EACH)
    layer = left_out.split("layers.")[1].split(".")[0]
    assert gate.detail.startswith(f"blk.{layer}.ffn_down.weight carries")


def read_all(adapter: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(adapter / "adapter_model.safetensors")


def test_a_change_of_another_tensor_is_caught(
    reference: Session, example: Path, adapter: Path, tmp_path: Path
) -> None:
    """A training run that also moved what the adapter does not hold."""
    editor = Editor(example, tmp_path / "changed")
    rng = np.random.default_rng(2)

    def moved(w: np.ndarray) -> np.ndarray:
        return w + (0.05 * w.std() * rng.standard_normal(w.shape)).astype(w.dtype)

    editor.change("model.layers.0.feed_forward.w1.weight", moved)
    path = convert(editor.folder, tmp_path, "Q4_K_M", adapter)
    result = judged(reference, path)
    gate = next(gate for gate in result.failures if gate.name == OTHERS)
    assert gate.detail.startswith("blk.0.ffn_gate.weight")


AROUND = {  # names in the adapter of what a text model has as model.layers.1...
    "LFM2.5-VL-Tune-v2-float32": "model.language_model.",
    "LFM2.5-Audio-1.5B": "lfm.",
    "retrieval": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AROUND)
def test_the_text_model_in_another(name: str, tmp_path: Path) -> None:
    """Vision, audio and retrieval: their adapters have the names of the whole."""
    q = f"{AROUND[name]}layers.1.self_attn.q_proj"
    tower = linear("model.vision_tower.encoder.layers.0.self_attn.q_proj", 64, 64)
    shapes = linear(q, 64, 64) | (tower if "VL" in name else {})
    case = replace(GGUF_CASES["retrieval"], shapes=shapes, config={"alpha_pattern": {q: 2}})
    if name == "retrieval":
        source = make_base(case, tmp_path / "Base")
    else:
        source = multimodal.make_multimodal(multimodal.CASES[name], tmp_path / "Base")
    tune = make_adapter(case, tmp_path / "tune")
    one, other = (convert(source, tmp_path, type, lora) for type, lora in
                  (("F32", tune), ("F16", None)))  # fmt: skip
    reference = open_reference(source, lora=tune)
    options: dict[str, Any] = {"material": ONE_CHUNK, "engine": Engine("numpy")}
    result = lfm2gguf.verify(one, reference, **options)
    assert result.passed, result.failures
    assert [delta.name for delta in result.deltas] == ["blk.1.attn_q.weight"]
    assert {EACH, ALL} <= failed(lfm2gguf.verify(other, reference, **options))


def test_an_untrained_adapter_is_refused(example: Path, adapter: Path, tmp_path: Path) -> None:
    """B is zero before the first step of training."""
    folder = tmp_path / "untrained"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    zeros = {n: x * (0 if "lora_B" in n else 1) for n, x in read_all(adapter).items()}
    write_safetensors(folder / "adapter_model.safetensors", zeros, "F32")
    path = convert(example, tmp_path, "F32", None)
    reference = open_reference(example, lora=folder)
    with pytest.raises(OptionError, match="changes nothing"):
        lfm2gguf.verify(path, reference, material=ONE_CHUNK, engine=Engine("numpy"))


def test_a_gguf_is_no_base_of_an_adapter(files: dict[str, Path], adapter: Path) -> None:
    with pytest.raises(OptionError, match=r"lora \(--lora\) needs a checkpoint"):
        open_reference(files["BF16"], lora=adapter)


def test_reports_name_the_deltas(
    reference: Session, example: Path, adapter: Path, tmp_path: Path
) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    result = judged(reference, convert(example, tmp_path, "Q8_0", adapter))
    report = json.loads(dumps([result]))
    schema = (resources("lfm2gguf.verification") / "report.schema.json").read_text()
    jsonschema.validate(report, json.loads(schema), cls=jsonschema.Draft202012Validator)
    deltas = report["files"][0]["deltas"]
    assert len(deltas) == len(result.deltas) > 0
    assert EACH in markdown([result])
    assert report["files"][0]["reference"]["name"].endswith("with tune")


@pytest.mark.slow
def test_the_commands(example: Path, adapter: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    target = tmp_path / "merged.gguf"
    done = start("convert", example, "--lora", adapter, "-t", "Q4_K_M", "-o", target, "--verify")
    assert done.returncode == 0, done.stderr
    assert EACH in done.stdout
    done = run(target, "-r", example, "--lora", adapter, "--chunks", 2)
    assert done.returncode == 0, done.stderr
    assert ALL in done.stdout
    plain = convert(example, tmp_path, "Q4_K_M", None)
    done = run(plain, "-r", example, "--lora", adapter, "--chunks", 2)
    assert done.returncode == 1
    assert f"{EACH}: 100" in done.stdout
