"""The dense text models: LFM2 and LFM2.5 from 230M to 2.6B."""

from __future__ import annotations

from collections.abc import Iterator

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.plan import PlannedTensor

ARCHITECTURE = "lfm2"
LEADING = ()  # keys that follow general.architecture directly

# GGUF name: (name in the checkpoint, shape there). Names of the GGUF from
# gguf-py/gguf/tensor_mapping.py, llama.cpp commit 0c1e57098; those of the checkpoint from
# models/lfm2/modeling_lfm2.py, transformers 5.
Table = dict[str, tuple[str, tuple[str, ...]]]
OUTER: Table = {
    "token_embd": ("model.embed_tokens", ("vocab", "hidden")),
    "token_embd_norm": ("model.embedding_norm", ("hidden",)),
}
HEAD: Table = {"output": ("lm_head", ("vocab", "hidden"))}
BLOCK: Table = {
    "attn_norm": ("operator_norm", ("hidden",)),
    "ffn_norm": ("ffn_norm", ("hidden",)),
    "ffn_gate": ("feed_forward.w1", ("ffn", "hidden")),
    "ffn_down": ("feed_forward.w2", ("hidden", "ffn")),
    "ffn_up": ("feed_forward.w3", ("ffn", "hidden")),
}
OPERATOR: dict[str, Table] = {
    "conv": {
        "shortconv.conv": ("conv.conv", ("hidden", "1", "conv_cache")),
        "shortconv.in_proj": ("conv.in_proj", ("3 hidden", "hidden")),
        "shortconv.out_proj": ("conv.out_proj", ("hidden", "hidden")),
    },
    "full_attention": {
        "attn_q": ("self_attn.q_proj", ("hidden", "hidden")),
        "attn_k": ("self_attn.k_proj", ("kv", "hidden")),
        "attn_v": ("self_attn.v_proj", ("kv", "hidden")),
        "attn_output": ("self_attn.out_proj", ("hidden", "hidden")),
        "attn_q_norm": ("self_attn.q_layernorm", ("head",)),
        "attn_k_norm": ("self_attn.k_layernorm", ("head",)),
    },
}


def tensors(config: Lfm2Config, checkpoint: Checkpoint) -> Iterator[PlannedTensor]:
    """Every tensor of the file, with its source."""
    sizes = {
        "1": 1,
        "hidden": config.hidden_size,
        "3 hidden": 3 * config.hidden_size,
        "ffn": config.feed_forward,
        "vocab": config.vocab_size,
        "head": config.head_dim,
        "kv": config.n_kv_heads * config.head_dim,
        "conv_cache": config.conv_cache,
    }

    def expand(table: Table, to: str = "", source: str = "") -> Iterator[PlannedTensor]:
        for name, (hf, dims) in table.items():
            shape = tuple(sizes[dim] for dim in dims if dim != "1")
            source_shape = tuple(sizes[dim] for dim in dims)
            yield PlannedTensor(f"{to}{name}.weight", shape, f"{source}{hf}.weight", source_shape)

    yield from expand(OUTER if config.tied else OUTER | HEAD)
    for i, kind in enumerate(config.layer_types):
        yield from expand(BLOCK | OPERATOR[kind], f"blk.{i}.", f"model.layers.{i}.")


def left_out(config: Lfm2Config, checkpoint: Checkpoint) -> dict[str, str]:
    """Tensors that a checkpoint may hold and that are not written, with the reason."""
    return {"lm_head.weight": "the config ties it to the embedding"} if config.tied else {}


def metadata(config: Lfm2Config, checkpoint: Checkpoint) -> Metadata:
    """The keys of the architecture, in the order in which llama.cpp's converter writes them."""
    kv_heads = [config.n_kv_heads if kind != "conv" else 0 for kind in config.layer_types]
    u32, f32 = ValueType.UINT32, ValueType.FLOAT32
    head = {"key_length": u32, "value_length": u32} if config.states_head_dim else {}
    keys = {
        "block_count": Value(u32, len(config.layer_types)),
        "context_length": Value(u32, config.context_length),
        "embedding_length": Value(u32, config.hidden_size),
        "feed_forward_length": Value(u32, config.feed_forward),
        "attention.head_count": Value(u32, config.n_heads),
        "attention.head_count_kv": Value(ValueType.ARRAY, kv_heads, ValueType.INT32),
        "rope.freq_base": Value(f32, config.rope_theta),
        "attention.layer_norm_rms_epsilon": Value(f32, config.norm_eps),
        **{f"attention.{key}": Value(type, config.head_dim) for key, type in head.items()},
        "vocab_size": Value(u32, config.vocab_size),
        "shortconv.l_cache": Value(u32, config.conv_cache),
    }
    return {f"{ARCHITECTURE}.{key}": value for key, value in keys.items()}
