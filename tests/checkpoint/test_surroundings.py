"""Folders as trainers and clones leave them: told for what they are, with what puts them right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, Lfm2ggufError
from lfm2gguf.lfm2 import make_plan
from tests.making.checkpoints import CASES, make, write_safetensors

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 7888480\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(CASES["LFM2-rows-of-16"], tmp_path / "model")


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def step(name: str, file: str) -> Callable[[Path], object]:
    def lay(folder: Path) -> None:
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_bytes(b"x")

    return lay


def file(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).write_bytes(b"x") for name in names]


def steps(folder: Path) -> None:
    for n in (90, 500, 1000):
        step(f"checkpoint-{n}", "model.safetensors" if n < 1000 else "optimizer.pt")(folder)
    (folder / "training_args.bin").write_bytes(b"x")


@pytest.mark.parametrize(
    ("lay", "said"),
    [
        (steps, "the newest are in checkpoint-500"),
        (step("checkpoint-7", "adapter_model.safetensors"), "the newest are in checkpoint-7"),
        (step("pytorch_model_fsdp_0", "__0_0.distcp"), "accelerate merge-weights"),
        (step("global_step100", "mp_rank_00_model_states.pt"), "zero_to_fp32.py"),
        (step("global_step1_universal/zero", "optimizer_state.pt"), "deepspeed.utils.zero_to_fp32"),
        (step("zero/model.embed_tokens.weight", "fp32.pt"), "DeepSpeed's universal checkpoint"),
        (file("latest_universal"), "universal checkpoint (latest_universal)"),
        (file("hf_model_0001_0.pt"), "torchtune's pickles (hf_model_0001_0.pt)"),
        (file("meta_model_2.pt"), "FullModelHFCheckpointer"),
        (file("torchtune_model_0.pt"), "tune run"),
        (file("adapter_0.pt"), "torchtune's adapter (adapter_0.pt)"),
        (file("adapter_model.pt", "adapter_config.json", "recipe_state.pt"), "is a LoRA adapter"),
        (file("adapter_model.bin", "adapter_config.json"), "is a LoRA adapter"),
        (step("epoch_0", "adapter_config.json"), "a LoRA adapter below (epoch_0/adapter_config.js"),
        (file("ft-model-00001-of-00002.safetensors"), "take ft- off"),
        (lambda f: (f / "__0_0.distcp").write_bytes(b"x"), "format_utils dcp_to_torch"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "PyTorch pickles"),
        (lambda f: (f / "training_args.bin").write_bytes(b"x"), "has no weights (model.saf"),
        (lambda f: (f / "consolidated.safetensors").write_bytes(b"x"), "consolidated.safetensors"),
        (lambda f: (f / "weights.npz").write_bytes(b"x"), "mlx_lm.convert"),
        (lambda f: (f / "adapters.safetensors").write_bytes(b"x"), "MLX adapter"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x"), "call it model.safetensors"),
        (lambda f: (f / "a.safetensors.incomplete").write_bytes(b"x"), "finish the download"),
        (lambda f: (f / "a-Q4_K_M.gguf").write_bytes(b"x"), "lfm2gguf quantize"),
        (step("onnx", "model.onnx"), "ONNX model"),
    ],
)
def test_what_stands_in_place_of_weights(
    folder: Path, lay: Callable[[Path], object], said: str
) -> None:
    (folder / "model.safetensors").unlink()
    lay(folder)
    with pytest.raises(Lfm2ggufError) as error:
        Checkpoint.open(folder)
    assert said in str(error.value)


@pytest.mark.parametrize("place", ["merged", "epoch_2", "snapshots/0123abcd"])
@pytest.mark.parametrize("has_config", [True, False])
def test_a_checkpoint_below_is_named(folder: Path, place: str, has_config: bool) -> None:
    whole = folder.rename(folder.with_name("whole"))
    folder.mkdir()
    if has_config:
        (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
    (folder / place).parent.mkdir(exist_ok=True)
    whole.rename(folder / place)
    with pytest.raises(CheckpointError, match=rf"some in {place}: give .*{place}$"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400])
def test_a_number_that_is_none(folder: Path, value: str) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace("1e-05", value))
    with pytest.raises(CheckpointError, match=r"norm_eps is .*, not a valid float"):
        make_plan(Checkpoint.open(folder))


def test_a_template_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xe9")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: cannot be read"):
        make_plan(Checkpoint.open(folder))


@pytest.mark.parametrize(
    "file",
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
     "chat_template.jinja", "generation_config.json"],
)  # fmt: skip
def test_git_lfs_pointers(folder: Path, file: str) -> None:
    (folder / file).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{file}: is a Git LFS pointer"):
        make_plan(Checkpoint.open(folder))


def test_a_variant_beside_the_model(folder: Path) -> None:
    before = Checkpoint.open(folder)
    (folder / "model.fp16.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.tensors == before.tensors
    assert "not read: model.fp16.safetensors" in make_plan(checkpoint).notes[0]
    (folder / "model.safetensors").unlink()
    alone = Checkpoint.open(folder).tensors.values()
    assert {info.file.name for info in alone} == {"model.fp16.safetensors"}


def test_an_index_that_lists_a_tied_head(tmp_path: Path) -> None:
    folder = make(CASES["LFM2-rows-of-16"], tmp_path / "model")
    names = Checkpoint.open(folder).tensors
    index = dict.fromkeys((*names, "lm_head.weight"), "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    plan = make_plan(Checkpoint.open(folder))
    assert "lm_head.weight" in plan.notes[0]
    assert "output.weight" not in {tensor.name for tensor in plan.tensors}


def test_an_untied_head_that_is_missing(folder: Path) -> None:
    change(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"tie_word_embeddings.*would make a random one"):
        make_plan(Checkpoint.open(folder))


@pytest.mark.parametrize(
    ("given", "kind", "own"),
    [
        ("FSDPLfm2ForCausalLM", "lfm2", "Lfm2ForCausalLM"),
        ("Lfm2ForCausalLMWithValueHead", "lfm2", "Lfm2ForCausalLM"),
        ("PeftModelForCausalLM", "lfm2", "Lfm2ForCausalLM"),
        ("AutoModelForCausalLMWithValueHead", "lfm2", "Lfm2ForCausalLM"),
        ("OptimizedModule", "lfm2_moe", "Lfm2MoeForCausalLM"),
        ("FSDPLfm2VlForConditionalGeneration", "lfm2_vl", "Lfm2VlForConditionalGeneration"),
    ],
)
def test_a_wrappers_class(folder: Path, given: str, kind: str, own: str) -> None:
    change(folder / "config.json", architectures=[given], model_type=kind)
    for checkpoint in (Checkpoint.open(folder), Checkpoint.config_only(folder)):
        assert checkpoint.config["architectures"] == [own]
        assert given in checkpoint.notes[0]


PACKED = {
    "MLX": (".weight", ".scales", ".biases"),
    "bitsandbytes": (".weight", ".weight.absmax", ".weight.quant_map"),
    "GPTQ": (".qweight", ".qzeros", ".scales", ".g_idx"),
    "AWQ": (".qweight", ".qzeros", ".scales"),
    "compressed-tensors": (".weight_packed", ".weight_scale", ".weight_shape"),
    "torchao": ("._weight_qdata", "._weight_scale"),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("is_said", [True, False])
def test_quantized_weights(folder: Path, kind: str, is_said: bool) -> None:
    module = "model.layers.0.feed_forward.w1"
    tensors = {module + end: np.zeros((4, 4), np.float32) for end in PACKED[kind]}
    write_safetensors(folder / "model.safetensors", tensors)
    about = {"bits": 4, "group_size": 64}
    if is_said and kind == "MLX":
        change(folder / "config.json", quantization=about)
    elif is_said:
        method = {"quant_method": kind.lower()}
        change(folder / "config.json", quantization_config=about | method)
    with pytest.raises(Lfm2ggufError, match=rf"quantized already \({kind}.*BF16 checkpoint"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("key", ["quantization_config", "quantization"])
def test_a_stale_quantization_config(folder: Path, key: str) -> None:
    change(folder / "config.json", **{key: {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    assert "bitsandbytes, and no weight is quantized" in make_plan(Checkpoint.open(folder)).notes[0]
