"""The dense text models: LFM2 and LFM2.5 from 230M to 2.6B."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.plan import PlannedTensor, Source

ARCHITECTURE = "lfm2"
U32, F32 = ValueType.UINT32, ValueType.FLOAT32
LEADING: tuple[str, ...] = ()  # keys that follow general.architecture directly

# GGUF name: (name in the checkpoint, shape there). Names of the GGUF from
# gguf-py/gguf/tensor_mapping.py, llama.cpp commit 0c1e57098; those of the checkpoint from
# models/lfm2/modeling_lfm2.py, transformers 5.
Table = dict[str, tuple[str, tuple[str, ...]]]
OUTER: Table = {
    "token_embd": ("model.embed_tokens", ("vocab", "hidden")),
    "token_embd_norm": ("model.embedding_norm", ("hidden",)),
}
HEAD: Table = {"output": ("lm_head", ("vocab", "hidden"))}
NORMS: Table = {
    "attn_norm": ("operator_norm", ("hidden",)),
    "ffn_norm": ("ffn_norm", ("hidden",)),
}
FEED_FORWARD: Table = {
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
    return layout(config.layer_types, dimensions(config), tied=config.tied)


def layout(
    kinds: Iterable[str], sizes: Mapping[str, int], *, tied: bool
) -> Iterator[PlannedTensor]:
    """Every tensor of a model with layers of these kinds and these sizes."""
    yield from expand(OUTER if tied else OUTER | HEAD, sizes)
    for i, kind in enumerate(kinds):
        table = NORMS | FEED_FORWARD | OPERATOR[kind]
        yield from expand(table, sizes, f"blk.{i}.", f"model.layers.{i}.")


def expand(
    table: Table, sizes: Mapping[str, int], to: str = "", source: str = ""
) -> Iterator[PlannedTensor]:
    """A table's tensors, ``to`` and ``source`` before their names."""
    for name, (hf, dims) in table.items():
        shape = tuple(sizes[dim] for dim in dims if dim != "1")
        there = Source(f"{source}{hf}.weight", tuple(sizes[dim] for dim in dims))
        yield PlannedTensor(f"{to}{name}.weight", shape, (there,))


def dimensions(config: Lfm2Config) -> dict[str, int]:
    """The sizes that the tables name."""
    return named_sizes(
        hidden=config.hidden_size,
        ffn=config.feed_forward,
        vocab=config.vocab_size,
        head=config.head_dim,
        kv=config.n_kv_heads * config.head_dim,
        conv_cache=config.conv_cache,
    )


def named_sizes(*, hidden: int, **others: int) -> dict[str, int]:
    """The sizes that the tables name, those that follow from others included."""
    return {"1": 1, "hidden": hidden, "3 hidden": 3 * hidden, **others}


def left_out(config: Lfm2Config, checkpoint: Checkpoint) -> dict[str, str]:
    """Tensors that a checkpoint may hold and that are not written, with the reason."""
    return (
        {"lm_head.weight": "it is the embedding once more, as the config says"}
        if config.tied
        else {}
    )


def metadata(config: Lfm2Config, checkpoint: Checkpoint) -> Metadata:
    """The keys of the architecture, in the order in which llama.cpp's converter writes them."""
    keys = shape_keys(config) | head_keys(config) | last_keys(config)
    return {f"{ARCHITECTURE}.{key}": value for key, value in keys.items()}


def shape_keys(config: Lfm2Config) -> Metadata:
    """The keys that every member begins with."""
    kv_heads = [config.n_kv_heads if kind != "conv" else 0 for kind in config.layer_types]
    return {
        "block_count": Value(U32, len(config.layer_types)),
        "context_length": Value(U32, config.context_length),
        "embedding_length": Value(U32, config.hidden_size),
        "feed_forward_length": Value(U32, config.feed_forward),
        "attention.head_count": Value(U32, config.n_heads),
        "attention.head_count_kv": Value(ValueType.ARRAY, kv_heads, ValueType.INT32),
        "rope.freq_base": Value(F32, config.rope_theta),
        "attention.layer_norm_rms_epsilon": Value(F32, config.norm_eps),
    }


def head_keys(config: Lfm2Config) -> Metadata:
    """The size of a head, where the config states it."""
    names = ("attention.key_length", "attention.value_length") if config.states_head_dim else ()
    return {name: Value(U32, config.head_dim) for name in names}


def last_keys(config: Lfm2Config) -> Metadata:
    """The keys that every member ends with."""
    return {
        "vocab_size": Value(U32, config.vocab_size),
        "shortconv.l_cache": Value(U32, config.conv_cache),
    }
