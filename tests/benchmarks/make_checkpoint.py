"""Make a checkpoint of a real model's shapes with random weights.

    python tests/benchmarks/make_checkpoint.py CONFIG.json OUT [--tokenizer FOLDER]
        [--layers N] [--vocab N] [--shards N] [--dtype BF16|F16|F32] [--seed 0] [--sharp X]

No weights of the LFM2 family can be shipped, and speed and parity do not need them: normal
weights of the size that trained ones have (standard deviation 0.02, norms around 1) take
the same paths. Their logits are nearly alike, which leaves a sampler thousands of candidates
where a trained model leaves it a few: ``--sharp 6`` scales the last norm, and so sets them apart.
Written one tensor at a time, so that memory stays small at any size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

LAST_NORM = "model.embedding_norm.weight"
ITEM_SIZE = {"BF16": 2, "F16": 2, "F32": 4}


def feed_forward_width(config: dict) -> int:
    width = config.get("block_ff_dim") or config["intermediate_size"]
    if "num_experts" in config or not config.get("block_auto_adjust_ff_dim", True):
        return width
    width = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
    multiple = config.get("block_multiple_of", 256)
    return -(-width // multiple) * multiple


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in the order in which transformers saves them."""
    hidden, width = config["hidden_size"], feed_forward_width(config)
    head = hidden // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * head
    kinds = config.get("layer_types") or [
        "full_attention" if i in config["full_attn_idxs"] else "conv"
        for i in range(config["num_hidden_layers"])
    ]
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    out["model.embedding_norm.weight"] = (hidden,)
    for i, kind in enumerate(kinds):
        layer = {"operator_norm": (hidden,), "ffn_norm": (hidden,)}
        if kind == "conv":
            layer["conv.conv"] = (hidden, 1, config["conv_L_cache"])
            layer["conv.in_proj"] = (3 * hidden, hidden)
            layer["conv.out_proj"] = (hidden, hidden)
        else:
            layer["self_attn.q_proj"] = (hidden, hidden)
            layer["self_attn.k_proj"] = (kv, hidden)
            layer["self_attn.v_proj"] = (kv, hidden)
            layer["self_attn.out_proj"] = (hidden, hidden)
            layer["self_attn.q_layernorm"] = (head,)
            layer["self_attn.k_layernorm"] = (head,)
        expert = config.get("moe_intermediate_size", 0)
        moe = "num_experts" in config and i >= config.get("num_dense_layers", 2)
        for owner in [f"experts.{e}." for e in range(config["num_experts"])] if moe else [""]:
            inner = expert if moe else width
            layer[f"feed_forward.{owner}w1"] = (inner, hidden)
            layer[f"feed_forward.{owner}w2"] = (hidden, inner)
            layer[f"feed_forward.{owner}w3"] = (inner, hidden)
        if moe:
            layer["feed_forward.gate"] = (config["num_experts"], hidden)
            out[f"model.layers.{i}.feed_forward.expert_bias"] = (config["num_experts"],)
        out |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    if config.get("tie_word_embeddings", config.get("tie_embedding", True)) is False:
        out["lm_head.weight"] = (config["vocab_size"], hidden)
    return out


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":  # truncation is good enough: the values are random anyway
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def write_shard(
    path: Path,
    tensors: dict[str, tuple[int, ...]],
    dtype: str,
    rng: np.random.Generator,
    sharp: float = 1.0,
) -> None:
    header, offset = {}, 0
    for name, shape in tensors.items():
        end = offset + int(np.prod(shape)) * ITEM_SIZE[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors.items():
            size, norm, conv = int(np.prod(shape)), "norm" in name, ".conv.conv." in name
            for start in range(0, size, 1 << 22):
                part = rng.standard_normal(min(1 << 22, size - start), dtype=np.float32)
                part *= 0.1 if norm else 0.3 if conv else 0.02
                part = part + 1 if norm else part
                file.write(to_bytes(part * sharp if name == LAST_NORM else part, dtype))


def make(
    config: dict,
    out: Path,
    *,
    shards: int = 1,
    dtype: str = "BF16",
    seed: int = 0,
    sharp: float = 1.0,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    tensors, rng = shapes(config), np.random.default_rng(seed)
    names = list(tensors)
    if shards == 1:
        write_shard(out / "model.safetensors", tensors, dtype, rng, sharp)
        return
    weight_map = {}
    for i, part in enumerate(np.array_split(names, shards), 1):
        file = f"model-{i:05d}-of-{shards:05d}.safetensors"
        write_shard(out / file, {name: tensors[name] for name in part}, dtype, rng, sharp)
        weight_map |= dict.fromkeys(map(str, part), file)
    index = {"metadata": {}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder with the tokenizer's files")
    parser.add_argument("--layers", type=int, help="repeat or cut the layers to this number")
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dtype", choices=ITEM_SIZE, default="BF16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sharp", type=float, default=1.0)
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    if args.layers:
        kinds = config.pop("layer_types", None)
        full = config.pop("full_attn_idxs", None)
        n = config["num_hidden_layers"]
        kinds = kinds or ["full_attention" if i in full else "conv" for i in range(n)]
        config["layer_types"] = [kinds[i % n] for i in range(args.layers)]
        config["num_hidden_layers"] = args.layers
    if args.vocab:
        config["vocab_size"] = args.vocab
    make(
        config, args.out, shards=args.shards, dtype=args.dtype, seed=args.seed, sharp=args.sharp
    )  # fmt: skip
    for file in args.tokenizer.iterdir() if args.tokenizer else ():
        if file.name != "config.json":
            shutil.copy(file, args.out)


if __name__ == "__main__":
    main()
