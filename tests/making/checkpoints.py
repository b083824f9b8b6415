"""Small LFM2 checkpoints: random, and the same bits everywhere, as golden digests need.

The shapes come from the benchmark's maker: nothing here shares code with the converter.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.make_checkpoint import shapes
from tests.quants.samples import normal

SPECIAL = (
    "<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim_pre|>", "<|fim_mid|>", "<|fim_suf|>",
    "<|im_start|>", "<|im_end|>", "<|tool_list_start|>", "<|tool_list_end|>",
)  # fmt: skip
# Added, and not special to transformers; those that look special are to llama.cpp.
PLAIN = ("<|tool_call_start|>", "<|tool_call_end|>", "Mathias", "<pad>", "<unused7>", "a\u2581b")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = (
    ("h", "e"), ("t", "he"), ("\u0120", "a"), ("i", "n"), ("e", "r"), ("\u0120", "the"),
    ("\u010a", "\u010a"), ("\u00c3", "\u00a9"),
)  # fmt: skip
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
CARD = """---
license: other
license_name: lfm1.0
license_link: LICENSE
language: [en, de, "no"]
pipeline_tag: text-generation
tags: [liquid, lfm2]
base_model: LiquidAI/LFM2-350M
---
# A model
"""
BASE: dict[str, Any] = {
    "architectures": ["Lfm2ForCausalLM"],
    "model_type": "lfm2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "block_auto_adjust_ff_dim": False,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "num_hidden_layers": 2,
    "layer_types": ["conv", "full_attention"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "conv_L_cache": 3,
    "conv_bias": False,
    "norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 7,
    "pad_token_id": 0,
}
OLD_SPELLING: dict[str, Any] = {
    "architectures": ["LFM2ForCausalLM"],
    "intermediate_size": None,
    "block_ff_dim": 700,  # two thirds, up to a multiple of 256: 512
    "block_auto_adjust_ff_dim": True,
    "norm_eps": 1e-6,
    "block_norm_eps": 1e-6,
    "layer_types": None,
    "full_attn_idxs": [0, 2],
    "num_hidden_layers": 3,
    "rope_parameters": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": None,
    "tie_embedding": False,
}


@dataclass(frozen=True)
class Case:
    """A checkpoint to be made: its config, how it is saved, and what lies beside it."""

    config: Mapping[str, Any]
    dtype: str = "BF16"
    shards: int = 1
    card: str = ""
    generation: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None  # a folder with a real one


def config(**changes: Any) -> dict[str, Any]:
    """:data:`BASE` with changes; None takes a key away."""
    return {key: value for key, value in (BASE | changes).items() if value is not None}


MANY_LAYERS = ["conv", "full_attention"] * 6
WIDE = {"hidden_size": 256, "intermediate_size": 512}
CASES = {
    "LFM2-rows-of-256": Case(
        config(**WIDE),
        card=CARD,
        generation={"temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.05},
    ),
    "LFM2-untied-old-spelling-3-shards": Case(
        config(**WIDE | {"block_dim": 256, "conv_dim": 256} | OLD_SPELLING), shards=3
    ),
    "LFM2-12-layers-rows-of-32": Case(
        config(num_hidden_layers=12, layer_types=MANY_LAYERS, head_dim=16)
    ),
    "LFM2-rows-of-16": Case(config(hidden_size=48, intermediate_size=80)),
    "LFM2-350M-float16": Case(config(**WIDE), dtype="F16"),
    "LFM2.5-1.2B-Tune-v2-float32": Case(config(**WIDE, tie_word_embeddings=False), dtype="F32"),
}
MOE = config(
    **WIDE,
    architectures=["Lfm2MoeForCausalLM"],
    model_type="lfm2_moe",
    num_hidden_layers=5,
    layer_types=["conv", "full_attention", "conv", "full_attention", "conv"],
    moe_intermediate_size=256,
    num_experts=8,
    num_experts_per_tok=2,
    num_dense_layers=2,
    norm_topk_prob=True,
    use_expert_bias=True,
    routed_scaling_factor=1.0,
)
NARROW_EXPERTS = {
    "num_experts": 4,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 10,
    "layer_types": MANY_LAYERS[:10],
    "head_dim": 64,
}
MOE_CASES = {
    "LFM2-8-experts": Case(MOE, card=CARD),
    "LFM2-4-experts-rows-of-32-3-shards": Case(MOE | NARROW_EXPERTS, shards=3),
    "LFM2-8x1B-float16": Case(MOE | {"num_dense_layers": 0}, dtype="F16", shards=2),
}
# Large enough to be cut at millions of bytes.
LARGE = Case(
    config(**WIDE, vocab_size=1500, num_hidden_layers=4, layer_types=MANY_LAYERS[:4]),
)
REAL = ("LFM2-1.2B", "LFM2.5-1.2B-Base")


def real(folder: Path) -> Case:
    """A real model's config and tokenizer, but for the width."""
    narrow = {"hidden_size": 32, "block_dim": 32, "conv_dim": 32, "conv_dim_out": 32,
              "block_ff_dim": 96, "intermediate_size": 96, "num_attention_heads": 4,
              "num_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    true = json.loads((folder / "config.json").read_text())
    return Case(true | {key: n for key, n in narrow.items() if key in true}, tokenizer=folder)


def make(case: Case, folder: Path) -> Path:
    """Write a whole checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", case.config)
    save(folder, weights(case.config), case.dtype, case.shards)
    if case.tokenizer:
        for file in case.tokenizer.iterdir():
            if file.name != "config.json":
                (folder / file.name).write_bytes(file.read_bytes())
        return folder
    for name, content in tokenizer().items():
        write_json(folder / name, content)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    if case.card:
        (folder / "README.md").write_text(case.card)
    if case.generation:
        write_json(folder / "generation_config.json", case.generation)
    return folder


def weights(of: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor, float32: norms about one, the others about zero."""
    tensors = {}
    for i, (name, shape) in enumerate(shapes(dict(of)).items()):
        values = 0.02 * normal(i, shape)
        tensors[name] = (values + 1 if "norm" in name else values).astype(np.float32)
    return tensors


def save(
    folder: Path, tensors: Mapping[str, np.ndarray], dtype: str = "BF16", shards: int = 1
) -> None:
    """Write the weights, in one file or as several with their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[i::shards]}
        write_safetensors(folder / file, part, dtype)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def pack(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Experts as transformers 5 computes with them: gate and up in one, all of a layer in one."""
    packed = {name: x for name, x in tensors.items() if ".experts." not in name}
    for layer in sorted({name.split("experts.")[0] for name in tensors if ".experts." in name}):
        count = len(tensors[f"{layer}gate.weight"])
        matrix = [
            {w: tensors[f"{layer}experts.{e}.{w}.weight"] for w in ("w1", "w2", "w3")}
            for e in range(count)
        ]
        both = [np.concatenate([expert["w1"], expert["w3"]]) for expert in matrix]
        packed[f"{layer}experts.gate_up_proj"] = np.stack(both)
        packed[f"{layer}experts.down_proj"] = np.stack([expert["w2"] for expert in matrix])
    return packed


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "BF16") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, x in tensors.items():
        begin, data = len(data), data + stored(x, dtype)
        header[name] = {"dtype": dtype, "shape": x.shape, "data_offsets": [begin, len(data)]}
    write_raw_safetensors(path, json.dumps(header).encode(), data)


def write_raw_safetensors(path: Path, header: bytes, data: bytes) -> None:
    """Any header, sound or not."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def stored(x: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":  # cut, not rounded: the weights are random
        return (x.view(np.uint32) >> 16).astype("<u2").tobytes()
    return x.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))


def tokenizer() -> dict[str, Any]:
    """LFM2's tokenizer in small: all bytes, a few merges, the special tokens."""
    words = [*SPECIAL, *_byte_symbols(), *map("".join, MERGES)]
    added = [(i, text, True) for i, text in enumerate(SPECIAL)]
    added += [(len(words) + i, text, False) for i, text in enumerate(PLAIN)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [{"id": i, "content": text, **flags, "special": s} for i, text, s in added]
    main = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated",
                 "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                 "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": SPECIAL[1], "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {SPECIAL[1]: {"id": SPECIAL[1], "ids": [1], "tokens": [SPECIAL[1]]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(words)},
            "merges": MERGES,
        },
    }  # fmt: skip
    about = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in tokens},
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[7],
        "pad_token": SPECIAL[0],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {"tokenizer.json": main, "tokenizer_config.json": about}


def _byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = (chr(256 + i) for i in range(256 - len(kept)))
    return [chr(byte) if byte in kept else next(moved) for byte in range(256)]
