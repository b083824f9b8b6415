"""Small retrieval checkpoints in the layout of Sentence Transformers, the same bits everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.making.checkpoints import (
    WIDE,
    Case,
    config,
    make,
    weights,
    write_json,
    write_safetensors,
)
from tests.quants.samples import normal

# What is embedded in tests: an odd and an even number of tokens, and fewer than a kernel has.
SEQUENCES = [[1, 20, 33, 47, 200, 7, 90], [1, 5], [1, *range(40, 279, 7), 6, 6]]
POOLING_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")


@dataclass(frozen=True)
class Retrieval:
    """A checkpoint to be made: its config, dense layer's width and pooling, old spelling or new."""

    config: dict[str, Any]
    dtype: str = "BF16"
    dense: int = 0
    dense_dtype: str = "F32"
    pooling: dict[str, Any] = field(default_factory=dict)


def flags(*names: str) -> dict[str, Any]:
    """Pooling as Sentence Transformers before 6 spells it."""
    assert set(names) <= set(POOLING_FLAGS)
    return {f"pooling_mode_{name}": name in names for name in POOLING_FLAGS}


BIDIRECTIONAL = config(**WIDE, architectures=["Lfm2BidirectionalModel"])
CAUSAL = config(**WIDE, architectures=["Lfm2Model"])
CASES = {
    "LFM2.5-ColBERT-350M": Retrieval(BIDIRECTIONAL, dense=128),
    "LFM2.5-Embedding-350M": Retrieval(BIDIRECTIONAL, pooling=flags("cls_token")),
    "LFM2-ColBERT-350M": Retrieval(CAUSAL, dense=64, dense_dtype="BF16"),
    "LFM2-Mean-float32": Retrieval(BIDIRECTIONAL, dtype="F32", pooling={"pooling_mode": "mean"}),
    "LFM2-Last-rows-of-32": Retrieval(
        config(architectures=["Lfm2Model"]), dense=16, pooling=flags("lasttoken")
    ),
}


def make_retrieval(case: Retrieval, folder: Path) -> Path:
    """Write a whole checkpoint."""
    make(Case(case.config, case.dtype), folder)
    tensors = {name.removeprefix("model."): x for name, x in weights(case.config).items()}
    write_safetensors(folder / "model.safetensors", tensors, case.dtype)
    kind = "sentence_transformers.models"
    modules = [("", f"{kind}.Transformer")]
    if case.dense:
        modules.append(("1_Dense", "pylate.models.Dense.Dense"))
        write_dense(folder / "1_Dense", case)
    if case.pooling:
        modules.append(("2_Pooling", f"{kind}.Pooling"))
        (folder / "2_Pooling").mkdir()
        write_json(folder / "2_Pooling/config.json", case.pooling)
    rows = [{"idx": i, "path": path, "type": type} for i, (path, type) in enumerate(modules)]
    write_json(folder / "modules.json", rows)
    return folder


def write_dense(folder: Path, case: Retrieval) -> None:
    shape = (case.dense, case.config["hidden_size"])
    folder.mkdir()
    x = (0.05 * normal(4242, shape)).astype(np.float32)
    write_safetensors(folder / "model.safetensors", {"linear.weight": x}, case.dense_dtype)
    about = {"in_features": shape[1], "out_features": shape[0], "bias": False}
    identity = "torch.nn.modules.linear.Identity"
    write_json(folder / "config.json", about | {"activation_function": identity})
