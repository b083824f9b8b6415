"""The example model seen as a retrieval model: trained weights under each kind's settings."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.checkpoint import Checkpoint
from tests.making.checkpoints import write_json, write_safetensors
from tests.making.models import EXAMPLE

BERT, CAUSAL = "Lfm2BidirectionalModel", "Lfm2Model"
PROMPTS = {"prompts": {"query": "query: ", "document": "document: "}}


@dataclass(frozen=True)
class Kind:
    """An architecture, the width of a dense layer, and a pooling as Sentence Transformers says."""

    architecture: str
    dense: int = 0
    pooling: str = ""


KINDS = {
    "colbert": Kind(BERT, dense=128),
    "causal colbert": Kind(CAUSAL, dense=128),
    "cls": Kind(BERT, pooling="cls_token"),
    "mean": Kind(BERT, pooling="mean_tokens"),
    "last": Kind(CAUSAL, pooling="lasttoken"),
}


def make_example(kind: Kind, folder: Path) -> Path:
    """A copy of the example in the layout of Sentence Transformers."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("training"))
    source = Checkpoint.open(EXAMPLE)
    write_json(folder / "config.json", {**source.config, "architectures": [kind.architecture]})
    tensors = {name.removeprefix("model."): source.read(name) for name in source.tensors}
    write_safetensors(folder / "model.safetensors", tensors)
    modules: list[dict[str, Any]] = [{"path": "", "type": "sentence_transformers.Transformer"}]
    if kind.dense:
        modules.append({"path": "1_Dense", "type": "pylate.models.Dense.Dense"})
        (folder / "1_Dense").mkdir()
        write_json(folder / "1_Dense/config.json", {"activation_function": "torch.nn.Identity"})
        save_dense(folder, projection(source.config["hidden_size"], kind.dense))
    if kind.pooling:
        modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
        set_pooling(folder, kind.pooling)
    write_json(folder / "modules.json", modules)
    write_json(folder / "config_sentence_transformers.json", PROMPTS)
    return folder


def projection(columns: int, rows: int) -> np.ndarray:
    """Orthonormal rows: every direction of the states has the same chance to be seen."""
    square = np.random.default_rng(0).standard_normal((columns, rows))
    return np.ascontiguousarray(np.linalg.qr(square)[0].T.astype(np.float32))


def save_dense(folder: Path, matrix: np.ndarray) -> None:
    write_safetensors(folder / "1_Dense/model.safetensors", {"linear.weight": matrix}, "F32")


def set_pooling(folder: Path, name: str) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling/config.json", {f"pooling_mode_{name}": True})


def set_architecture(folder: Path, name: str) -> None:
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | {"architectures": [name]})
