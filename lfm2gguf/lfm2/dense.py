"""The dense text models: LFM2 and LFM2.5 from 230M to 2.6B."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lfm2gguf.checkpoint import Checkpoint, chat_template_notes
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2 import tied_head
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.metadata import Vocabulary, vocabulary
from lfm2gguf.lfm2.plan import PlannedTensor, Source

U32, F32 = ValueType.UINT32, ValueType.FLOAT32

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


@dataclass(frozen=True)
class Dense:
    """A dense text model. The other members build on it."""

    checkpoint: Checkpoint
    config: Lfm2Config
    decided: tuple[str, ...]  # about its head
    architecture: ClassVar[str] = "lfm2"
    leading: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Dense:
        """Parse the config, and settle whether the head is the embedding."""
        return cls(*tied_head.settle(checkpoint, Lfm2Config.read(checkpoint.config)))

    @property
    def n_layers(self) -> int:
        """Count the layers."""
        return len(self.config.layer_types)

    @property
    def n_experts(self) -> int:
        """Return 0: the feed-forward layers are one matrix each."""
        return 0

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its source."""
        return layout(self.config.layer_types, dimensions(self.config), tied=self.config.tied)

    def left_out(self) -> dict[str, str]:
        """Return the head of a model whose head is its embedding."""
        return (
            {tied_head.HEAD: "it repeats the embedding, as the config says"}
            if self.config.tied
            else {}
        )

    def metadata(self) -> Metadata:
        """Return the keys of the architecture."""
        keys = shape_keys(self.config) | head_keys(self.config) | last_keys(self.config)
        return self.named(keys)

    def named(self, keys: Metadata) -> Metadata:
        """Return keys under the architecture's name."""
        return {f"{self.architecture}.{key}": value for key, value in keys.items()}

    def vocabulary(self, pre: str | None) -> Vocabulary:
        """Return the vocabulary: a token for each row of the embedding."""
        return vocabulary(self.checkpoint, self.config.vocab_size, pre)

    def notes(self) -> list[str]:
        """Return what was decided about the head and the chat template."""
        folder = self.checkpoint.tokenizer_path or self.checkpoint.path
        return [*self.decided, *chat_template_notes(folder)]


def layout(
    kinds: Iterable[str], sizes: Mapping[str, int], *, tied: bool
) -> Iterator[PlannedTensor]:
    """Yield every tensor of a model with layers of these kinds and these sizes."""
    yield from expand(OUTER if tied else OUTER | HEAD, sizes)
    for i, kind in enumerate(kinds):
        table = NORMS | FEED_FORWARD | OPERATOR[kind]
        yield from expand(table, sizes, f"blk.{i}.", f"model.layers.{i}.")


def expand(
    table: Table, sizes: Mapping[str, int], to: str = "", source: str = ""
) -> Iterator[PlannedTensor]:
    """Yield a table's tensors, ``to`` and ``source`` before their names."""
    for name, (hf, dims) in table.items():
        shape = tuple(sizes[dim] for dim in dims if dim != "1")
        there = Source(f"{source}{hf}.weight", tuple(sizes[dim] for dim in dims))
        yield PlannedTensor(f"{to}{name}.weight", shape, (there,))


def dimensions(config: Lfm2Config) -> dict[str, int]:
    """Return the sizes that the tables name."""
    return named_sizes(
        hidden=config.hidden_size,
        ffn=config.feed_forward,
        vocab=config.vocab_size,
        head=config.head_dim,
        kv=config.n_kv_heads * config.head_dim,
        conv_cache=config.conv_cache,
    )


def named_sizes(*, hidden: int, **others: int) -> dict[str, int]:
    """Return the sizes that the tables name, those that follow from others included."""
    return {"1": 1, "hidden": hidden, "3 hidden": 3 * hidden, **others}


def shape_keys(config: Lfm2Config) -> Metadata:
    """Return the keys that every member begins with."""
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
    """Return the size of a head, where the config states it."""
    names = ("attention.key_length", "attention.value_length") if config.states_head_dim else ()
    return {name: Value(U32, config.head_dim) for name in names}


def last_keys(config: Lfm2Config) -> Metadata:
    """Return the keys that every member ends with."""
    return {
        "vocab_size": Value(U32, config.vocab_size),
        "shortconv.l_cache": Value(U32, config.conv_cache),
    }
