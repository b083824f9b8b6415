"""ColBERT and Embedding: against llama.cpp's two programs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, TensorError, UnsupportedError
from lfm2gguf.lfm2 import make_plan
from tests.conversion.test_parity import ROOT, check
from tests.making.checkpoints import write_json, write_safetensors
from tests.making.realdata import each, real
from tests.making.retrieval_checkpoints import CASES, flags, make_retrieval

GOLDEN = json.loads((ROOT / "tests/golden/retrieval.json").read_text(encoding="utf-8"))["cases"]
COLBERT, EMBEDDING = "LFM2.5-ColBERT-350M", "LFM2.5-Embedding-350M"


@pytest.mark.parametrize("name", CASES)
def test_every_type_is_what_llama_quantize_writes(name: str, tmp_path: Path) -> None:
    source = make_retrieval(CASES[name], tmp_path / name)
    files = convert(source, source, list(GOLDEN[name]["files"]), jobs=1).files
    for file in files:
        check(file.path, file.type, GOLDEN[name])


@pytest.mark.parametrize(("name", "n_tensors"), [(COLBERT, 149), (EMBEDDING, 148)])
def test_the_real_shapes_plan_without_weights(name: str, n_tensors: int, tmp_path: Path) -> None:
    file = real(f"configs/{name}.json")
    source = make_retrieval(CASES[name], tmp_path / name)
    config = json.loads(file.read_text())
    (source / "config.json").write_text(file.read_text())
    empty_weights(source, config)
    plan = make_plan(Checkpoint.open(source))
    assert len(plan.tensors) == n_tensors
    assert plan.metadata["lfm2.attention.causal"].value is False
    assert plan.metadata["lfm2.feed_forward_length"].value == 4608
    assert len(plan.metadata["tokenizer.ggml.tokens"].value) == config["vocab_size"]


def empty_weights(folder: Path, config: dict[str, Any]) -> None:
    """Files of the true shapes that take no space: holes instead of weights."""
    from tests.benchmarks.make_checkpoint import shapes
    from tests.making.checkpoints import write_raw_safetensors

    def write(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
        header, end = {}, 0
        for name, shape in tensors.items():
            begin, end = end, end + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        write_raw_safetensors(path, json.dumps(header).encode(), b"")
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + end)

    tensors = {name.removeprefix("model."): shape for name, shape in shapes(config).items()}
    write(folder / "model.safetensors", tensors)
    if (folder / "1_Dense").is_dir():
        write(folder / "1_Dense/model.safetensors", {"linear.weight": (128, config["hidden_size"])})


@pytest.fixture
def colbert(tmp_path: Path) -> Path:
    return make_retrieval(CASES[COLBERT], tmp_path / COLBERT)


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return make_retrieval(CASES[EMBEDDING], tmp_path / EMBEDDING)


@pytest.mark.parametrize(
    "pooling", [flags("max_tokens"), flags("cls_token", "mean_tokens"), {"pooling_mode": "max"}, {}]
)
def test_refuses_pooling_that_llama_cpp_does_not_do(embedding: Path, pooling: Any) -> None:
    write_json(embedding / "2_Pooling/config.json", pooling)
    with pytest.raises(UnsupportedError, match="the mean, the first or the last token"):
        convert(embedding, embedding / "out.gguf")
    assert not list(embedding.glob("*.gguf"))


def test_refuses_a_pooling_that_is_missing(embedding: Path) -> None:
    (embedding / "2_Pooling/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"the pooling that modules\.json names"):
        convert(embedding, embedding / "out.gguf")


@pytest.mark.parametrize("modules", [{}, [1], [{"type": "a.Pooling"}], [{"type": 3, "path": ""}],
                                     [{"type": "a.Pooling", "path": 5}]])  # fmt: skip
def test_refuses_damaged_modules(embedding: Path, modules: Any) -> None:
    write_json(embedding / "modules.json", modules)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        convert(embedding, embedding / "out.gguf")


def test_refuses_a_dense_layer_that_was_not_downloaded(colbert: Path) -> None:
    (colbert / "1_Dense/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="download the whole folder"):
        convert(colbert, colbert / "out.gguf")


def test_refuses_an_activation(colbert: Path) -> None:
    about = {"activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(colbert / "1_Dense/config.json", about)
    with pytest.raises(UnsupportedError, match="Tanh"):
        convert(colbert, colbert / "out.gguf")


@pytest.mark.parametrize("shape", [(128, 64), (128,), ()])
def test_refuses_a_dense_layer_of_another_shape(colbert: Path, shape: tuple[int, ...]) -> None:
    tensors = {"linear.weight": np.zeros(shape, np.float32)}
    write_safetensors(colbert / "1_Dense/model.safetensors", tensors)
    with pytest.raises(TensorError, match=r"1_Dense/linear\.weight"):
        convert(colbert, colbert / "out.gguf")


@pytest.mark.parametrize(("module", "name"), [("1_Dense", "linear.bias"), ("2_Dense", "x")])
def test_refuses_modules_that_would_be_lost(colbert: Path, module: str, name: str) -> None:
    """llama.cpp's converter drops a bias, and a second dense layer, without a word."""
    tensors = {name: np.zeros(128, np.float32)}
    if module == "1_Dense":
        tensors["linear.weight"] = np.zeros((128, 256), np.float32)
    (colbert / module).mkdir(exist_ok=True)
    write_safetensors(colbert / module / "model.safetensors", tensors)
    with pytest.raises(TensorError, match=f"{module}/{name}"):
        convert(colbert, colbert / "out.gguf")


def test_refuses_a_kernel_that_has_no_middle(tmp_path: Path) -> None:
    case = CASES[COLBERT]
    source = make_retrieval(replace(case, config=case.config | {"conv_L_cache": 4}), tmp_path / "x")
    with pytest.raises(UnsupportedError, match="takes an odd number"):
        convert(source, source / "out.gguf")


@pytest.mark.parametrize("file", each("configs/*-Encoder-*.json"))
def test_refuses_encoders_with_a_head(file: Path, colbert: Path) -> None:
    (colbert / "config.json").write_text(file.read_text())
    with pytest.raises(UnsupportedError, match="an encoder with a head of its own"):
        convert(colbert, colbert / "out.gguf")


def test_says_that_nothing_is_pooled(embedding: Path) -> None:
    assert convert(embedding, embedding / "pooled.gguf").notes == ()
    (embedding / "modules.json").unlink()
    assert "no pooling is written" in convert(embedding, embedding / "out.gguf").notes[0]


def test_the_file_says_how_to_pool(embedding: Path) -> None:
    file = GGUFFile.open(convert(embedding, embedding / "out.gguf", "Q8_0").files[0].path)
    assert file.get("lfm2.pooling_type") == 2  # LLAMA_POOLING_TYPE_CLS
    assert file.get("lfm2.attention.causal") is False
    assert "dense_2.weight" not in file.tensors
