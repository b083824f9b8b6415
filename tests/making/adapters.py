"""Small LoRA adapters with peft's names, random, the same bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.making.checkpoints import MOE, Case, config, make, write_json, write_safetensors
from tests.making.retrieval_checkpoints import Retrieval, make_retrieval
from tests.quants.samples import normal

PREFIX = "base_model.model."
CONV, ATTENTION = "model.layers.0.", "model.layers.1."
UNTIED = config(tie_word_embeddings=False)
SMALL_MOE = MOE | {"moe_intermediate_size": 96, "num_experts": 4}
EXPERTS = "model.layers.{}.feed_forward.experts"


@dataclass(frozen=True)
class AdapterCase:
    """An adapter: its base's config, its own, the shapes of what it holds by peft's names."""

    base: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "F32"


def linear(module: str, rows: int, columns: int, rank: int = 4) -> dict[str, tuple[int, ...]]:
    """A pair of factors."""
    a, b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
    return {a: (rank, columns), b: (rows, rank)}


def embedding(rank: int = 4) -> dict[str, tuple[int, ...]]:
    """The pair for an embedding of 300 tokens."""
    name = "model.embed_tokens.lora_embedding_"
    return {f"{name}A": (rank, 300), f"{name}B": (64, rank)}


def length(module: str, n: int) -> dict[str, tuple[int, ...]]:
    """DoRA's lengths."""
    return {f"{module}.lora_magnitude_vector": (n,)}


Q, IN, W2 = f"{ATTENTION}self_attn.q_proj", f"{CONV}conv.in_proj", f"{CONV}feed_forward.w2"
TARGETS = ["q_proj", "in_proj", "w2"]
THREE = {**linear(Q, 64, 64), **linear(IN, 192, 64), **linear(W2, 64, 96)}
THREE |= linear(f"{ATTENTION}feed_forward.w2", 64, 96)
PATTERNED = {
    **linear(Q, 64, 64, 2),
    **linear(IN, 192, 64, 3),
    **linear(W2, 64, 96),
    **linear(f"{ATTENTION}feed_forward.w2", 64, 96, 5),
}
PATTERNS = {
    "rank_pattern": {"q_proj": 2, "conv.in_proj": 3, "layers.1.feed_forward.w2": 5},
    "alpha_pattern": {"q_proj": 16, ".*in_proj": 5},
}
PACKED = {
    name: shape
    for i in (2, 3, 4)
    for name, shape in {
        **linear(f"{EXPERTS.format(i)}.base_layer", 192, 256, 4 * 3),
        **linear(EXPERTS.format(i), 256, 96, 4 * 3),
    }.items()
}
# What peft loads and merges itself: golden/make_lora.py.
CASES = {
    "plain": AdapterCase(UNTIED, THREE, {"target_modules": TARGETS}),
    "bfloat16": AdapterCase(UNTIED, THREE, {"target_modules": TARGETS}, "BF16"),
    "patterns": AdapterCase(UNTIED, PATTERNED, {"target_modules": TARGETS, **PATTERNS}),
    "rslora": AdapterCase(
        UNTIED, PATTERNED, {"target_modules": TARGETS, "use_rslora": True, **PATTERNS}
    ),
    "dora": AdapterCase(
        UNTIED,
        {**linear(Q, 64, 64), **length(Q, 64), **linear(IN, 192, 64), **length(IN, 192),
         **embedding(), **length("model.embed_tokens", 64)},
        {"target_modules": ["q_proj", "in_proj", "embed_tokens"], "use_dora": True},
    ),
    "embedding-and-head": AdapterCase(
        UNTIED,
        {**embedding(3), **linear("lm_head", 300, 64, 3)},
        {"target_modules": ["embed_tokens", "lm_head"], "r": 3},
    ),
    "modules-to-save": AdapterCase(
        UNTIED,
        {**linear(Q, 64, 64), "model.embed_tokens.weight": (300, 64), "lm_head.weight": (300, 64),
         "model.layers.0.operator_norm.weight": (64,)},
        {"target_modules": ["q_proj"],
         "modules_to_save": ["embed_tokens", "lm_head", "layers.0.operator_norm"]},
    ),
    "packed-experts": AdapterCase(
        SMALL_MOE,
        PACKED,
        {"target_modules": [], "r": 3,
         "target_parameters": [f"feed_forward.experts.{x}" for x in ("gate_up_proj", "down_proj")]},
    ),
}  # fmt: skip
# What convert_lora_to_gguf.py takes and applies as peft does: golden/make_lora_gguf.py.
ONE_BY_ONE = {
    name: shape
    for layer in (2, 3, 4)
    for i in range(4)
    for matrix, rows, columns in (("w1", 96, 256), ("w2", 256, 96), ("w3", 96, 256))
    for name, shape in linear(f"{EXPERTS.format(layer)}.{i}.{matrix}", rows, columns, 3).items()
}
BOTH = CASES["embedding-and-head"]
# What peft saves beside the factors of embedding and head: the weights that they were made for.
BASE_LAYERS = {f"{x}.base_layer.weight": (300, 64) for x in ("lm_head", "model.embed_tokens")}
RETRIEVAL = config(architectures=["Lfm2Model"])
GGUF_CASES = {name: CASES[name] for name in ("plain", "bfloat16", "embedding-and-head")} | {
    "experts": AdapterCase(
        SMALL_MOE, ONE_BY_ONE, {"target_modules": ["w1", "w2", "w3"], "r": 3, "lora_alpha": 6}
    ),
    "base-layers": AdapterCase(UNTIED, {**BASE_LAYERS, **BOTH.shapes}, BOTH.config),
    "retrieval": AdapterCase(
        RETRIEVAL,
        {name.removeprefix("model."): shape for name, shape in THREE.items()},
        {"target_modules": TARGETS, "task_type": "FEATURE_EXTRACTION"},
    ),
    "activated": AdapterCase(
        UNTIED, THREE, {"target_modules": TARGETS, "alora_invocation_tokens": [40, 50]}
    ),
}


def base(case: AdapterCase) -> Case:
    """The checkpoint that it is for."""
    return Case(case.base, dtype="F32")


def make_base(case: AdapterCase, folder: Path) -> Path:
    """Write that checkpoint."""
    if case.base["architectures"] == RETRIEVAL["architectures"]:
        return make_retrieval(Retrieval(dict(case.base), dtype="F32"), folder)
    return make(base(case), folder)


def tensors(case: AdapterCase) -> dict[str, np.ndarray]:
    """Its tensors, float32 that BF16 holds too; lengths about one."""
    made = {}
    for i, (name, shape) in enumerate(case.shapes.items()):
        values = (0.2 * normal(1000 + i, shape)).astype(np.float32)
        values += np.float32(1.0) if "magnitude" in name or "norm" in name else np.float32(0)
        made[PREFIX + name] = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return made


def make_adapter(case: AdapterCase, folder: Path, **changes: Any) -> Path:
    """Write an adapter's folder."""
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none",
                "task_type": "CAUSAL_LM", "base_model_name_or_path": None}  # fmt: skip
    write_json(folder / "adapter_config.json", settings | dict(case.config) | changes)
    write_safetensors(folder / "adapter_model.safetensors", tensors(case), case.dtype)
    return folder
