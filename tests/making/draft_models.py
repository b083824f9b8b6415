"""Small DSpark drafts with the published names and config, random, the same bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.making.checkpoints import save, write_json
from tests.quants.samples import normal

# LFM2.5-2.6B-DSpark's config.json, but for the sizes.
DRAFT: dict[str, Any] = {
    "architectures": ["Lfm2DSparkDraftModel"],
    "model_type": "qwen3",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "rms_norm_eps": 1e-05,
    "vocab_size": 300,
    "rope_theta": 10000000,
    "max_position_embeddings": 32768,
    "layer_types": ["full_attention", "full_attention"],
    "block_size": 9,
    "dflash_config": {"mask_token_id": 299, "target_layer_ids": [0, 1], "num_target_layers": 3},
    "markov_rank": 64,
    "rope_is_neox_style": False,
    "enable_confidence_head": True,
    "markov_head_type": "vanilla",
}


@dataclass(frozen=True)
class DraftCase:
    """A draft: its config, how its names begin, and which optional tensors it has."""

    config: Mapping[str, Any] = field(default_factory=lambda: DRAFT)
    prefix: str = ""
    embedding: bool = False
    head: bool = False
    confidence: bool = True
    dtype: str = "BF16"


CASES = {
    "LFM2.5-2.6B-DSpark": DraftCase(),
    "LFM2.5-Wrapped-DSpark": DraftCase(
        DRAFT | {"rope_is_neox_style": True, "is_causal": False},
        prefix="model.", embedding=True, head=True, confidence=False, dtype="F32",
    ),
}  # fmt: skip


def draft_shapes(case: DraftCase) -> dict[str, tuple[int, ...]]:
    """Every tensor by its name in the checkpoint."""
    c = case.config
    hidden, head, rank, vocab = c["hidden_size"], c["head_dim"], c["markov_rank"], c["vocab_size"]
    q, kv = head * c["num_attention_heads"], head * c["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "fc.weight": (hidden, hidden * len(c["dflash_config"]["target_layer_ids"])),
        "hidden_norm.weight": (hidden,),
        "norm.weight": (hidden,),
        "markov_head.markov_w1.weight": (vocab, rank),
        "markov_head.markov_w2.weight": (vocab, rank),
    }
    for i in range(c["num_hidden_layers"]):
        layer = f"layers.{i}."
        found |= {
            f"{layer}input_layernorm.weight": (hidden,),
            f"{layer}post_attention_layernorm.weight": (hidden,),
            f"{layer}self_attn.q_proj.weight": (q, hidden),
            f"{layer}self_attn.k_proj.weight": (kv, hidden),
            f"{layer}self_attn.v_proj.weight": (kv, hidden),
            f"{layer}self_attn.o_proj.weight": (hidden, q),
            f"{layer}self_attn.q_norm.weight": (head,),
            f"{layer}self_attn.k_norm.weight": (head,),
            f"{layer}mlp.gate_proj.weight": (c["intermediate_size"], hidden),
            f"{layer}mlp.up_proj.weight": (c["intermediate_size"], hidden),
            f"{layer}mlp.down_proj.weight": (hidden, c["intermediate_size"]),
        }
    if case.confidence:
        found |= {"confidence_head.proj.weight": (1, hidden + rank),
                  "confidence_head.proj.bias": (1,)}  # fmt: skip
    if case.embedding:
        found["embed_tokens.weight"] = (vocab, hidden)
    if case.head:
        found["lm_head.weight"] = (vocab, hidden)
    return {case.prefix + name: shape for name, shape in found.items()}


def make_draft(case: DraftCase, folder: Path) -> Path:
    """Write a draft's folder: no tokenizer, which is its target's."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", case.config)
    tensors = {}
    for i, (name, shape) in enumerate(draft_shapes(case).items()):
        values = 0.02 * normal(7000 + i, shape)
        tensors[name] = (values + 1 if "norm" in name else values).astype(np.float32)
    save(folder, tensors, case.dtype)
    return folder
