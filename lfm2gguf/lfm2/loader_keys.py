"""The tensors that a GGUF's own keys call for: conversion's tables, entered from the other end.

llama.cpp creates its tensors from the keys, and refuses a file whose tensors have other names or
shapes. Which keys it reads, and how: ``load_hparams`` in src/llama-model.cpp, src/models/lfm2.cpp
and lfm2moe.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2 import dense, moe
from lfm2gguf.lfm2.config import MAX_LAYERS
from lfm2gguf.lfm2.dense import Dense
from lfm2gguf.lfm2.moe import Mixture

Shapes = dict[str, tuple[int, ...]]
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS, src/llama-hparams.h


@dataclass(frozen=True)
class Key:
    """A whole number, or one for each layer, of which the first is at least ``least``."""

    name: str
    least: int = 1
    most: int = 2**32 - 1
    needed: bool = True
    per_layer: bool = False

    def problem(self, value: Value | None, n_layers: int) -> str:
        """Say what llama.cpp would refuse; empty where the value is sound."""
        if value is None:
            return "is missing" if self.needed else ""
        if value.type is ValueType.ARRAY and self.per_layer:
            if len(value.value) != n_layers:
                return f"has {len(value.value)} items for {n_layers} layers"
            kind, number = value.item_type, value.value[0] if value.value else 0
        else:
            kind, number = value.type, value.value
        if kind is not ValueType.UINT32 and (kind, value.type) != (
            ValueType.INT32,
            ValueType.ARRAY,
        ):
            return f"is {kind.name.lower() if kind else 'nothing'}, where a uint32 belongs"
        return "" if self.least <= number <= self.most else f"is {number}"


KEYS = (
    Key("block_count", most=MAX_LAYERS),
    Key("context_length"),
    Key("embedding_length"),
    Key("feed_forward_length", per_layer=True),
    Key("attention.head_count", per_layer=True),
    Key("attention.head_count_kv", least=0, needed=False, per_layer=True),
    Key("attention.key_length", needed=False),
    Key("attention.value_length", needed=False),
    Key("rope.dimension_count", needed=False),
    Key("expert_group_count", least=0, needed=False),
    Key("embedding_length_out", least=0, needed=False),
    Key("shortconv.l_cache", least=2),  # GGML_ASSERT in lfm2.cpp
    Key("vocab_size", least=0, needed=False),
    Key("pooling_type", least=0, most=3, needed=False),  # RANK has tensors of its own
    Key("nextn_predict_layers", least=0, most=0, needed=False),
)
EXPERT_KEYS = (
    Key("expert_count", most=MAX_EXPERTS),
    Key("expert_used_count", most=MAX_EXPERTS, per_layer=True),
    Key("expert_feed_forward_length", per_layer=True),
    Key("expert_gating_func"),
    Key("leading_dense_block_count", least=0, needed=False),
)
# Which a dense model may have too, if they make sense.
LOOSE_EXPERT_KEYS = tuple(
    Key(name, least=0, most=MAX_EXPERTS, needed=False, per_layer=True)
    for name in ("expert_count", "expert_used_count")
)
BY_ARCHITECTURE = {
    Dense.architecture: KEYS + LOOSE_EXPERT_KEYS,
    Mixture.architecture: KEYS + EXPERT_KEYS,
}
NORM_EPS = "attention.layer_norm_rms_epsilon"
ROPE_SCALING = ("none", "linear", "yarn", "longrope")  # LLAMA_ROPE_SCALING_TYPES


@dataclass(frozen=True)
class Keys:
    """The keys of an LFM2's GGUF, by their names without the architecture."""

    architecture: str
    metadata: Metadata

    def value(self, name: str) -> Value | None:
        """Return what a key holds."""
        return self.metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str, default: int = 0) -> int:
        """Return a key's whole number; the first layer's, where there is one for each."""
        value = self.value(name)
        number = default if value is None else value.value
        return int(number[0] if isinstance(number, list) else number)

    def problems(self) -> dict[str, str]:
        """Return the keys that llama.cpp refuses or misses, with what is wrong."""
        layers = self.value("block_count")
        n_layers = layers.value if layers and layers.type is ValueType.UINT32 else 0
        known = BY_ARCHITECTURE[self.architecture]
        found = {key.name: key.problem(self.value(key.name), n_layers) for key in known}
        found[NORM_EPS] = self._epsilon()
        if not any(found.values()):
            found |= self._experts() | self._heads() | self._rope()
        return {f"{self.architecture}.{name}": what for name, what in found.items() if what}

    def _epsilon(self) -> str:
        """Say what ggml_rms_norm would die of."""
        eps = self.value(NORM_EPS)
        if eps is None:
            return "is missing"
        sound = eps.type is ValueType.FLOAT32 and 0 <= eps.value < math.inf
        return "" if sound else f"is {eps.value}, where a float32 of 0 or more belongs"

    def _experts(self) -> dict[str, str]:
        """Say where numbers of experts contradict each other (asserted by load_hparams)."""
        used, count, groups = (
            self.number(f"expert_{name}") for name in ("used_count", "count", "group_count")
        )
        if used > count:
            return {"expert_used_count": f"is more than the {count} experts"}
        if count and not used:
            return {"expert_used_count": f"is 0 of {count} experts"}
        return {"expert_group_count": f"is {groups}; LFM2 has no groups"} if groups > 1 else {}

    def _heads(self) -> dict[str, str]:
        """Say where keys and values have other lengths, which LFM2's graph does not take."""
        head = self.head
        value = self.number("attention.value_length", head)
        wrong = f"is {value}, and keys are {head} long" if value != head else ""
        return {"attention.value_length": wrong}

    def _rope(self) -> dict[str, str]:
        """Say what ggml_rope would die of."""
        kind, turned = (
            self.value("rope.scaling.type"),
            self.number("rope.dimension_count", self.head),
        )
        found = {}
        if kind and kind.value not in ROPE_SCALING:
            found["rope.scaling.type"] = f"is {kind.value!r}, not {' or '.join(ROPE_SCALING)}"
        if turned % 2 or turned > self.head:
            found["rope.dimension_count"] = f"is {turned}: not pairs in a head of {self.head}"
        return found

    @property
    def head(self) -> int:
        """Numbers in a head."""
        hidden, heads = self.number("embedding_length"), self.number("attention.head_count")
        return self.number("attention.key_length", hidden // heads)

    def tensors(self, n_vocab: int) -> tuple[Shapes, Shapes]:
        """Return the tensors that the file has to have, and those that it may: name and shape.

        Call it only if :meth:`problems` is empty. ``n_vocab`` is the number of tokens.
        """
        hidden, n_layers = self.number("embedding_length"), self.number("block_count")
        head = self.head
        kv_heads = self.value("attention.head_count_kv") or self.value("attention.head_count")
        each = kv_heads.value if kv_heads else 0
        each = each if isinstance(each, list) else [each] * n_layers
        kinds = ["full_attention" if n else "conv" for n in each]
        sizes = dense.named_sizes(
            hidden=hidden,
            ffn=self.number("feed_forward_length"),
            vocab=n_vocab,
            head=head,
            kv=max(each) * head,
            conv_cache=self.number("shortconv.l_cache"),
            experts=self.number("expert_count"),
            expert=self.number("expert_feed_forward_length"),
        )
        if self.architecture == Mixture.architecture:
            n_dense = self.number("leading_dense_block_count")
            needed = moe.layout(kinds, sizes, tied=True, dense_layers=n_dense)
        else:
            needed = dense.layout(kinds, sizes, tied=True)
        out = self.number("embedding_length_out") or hidden
        optional = {
            "output.weight": (n_vocab, hidden),
            "dense_2.weight": (out, hidden),
            "dense_2.bias": (out,),
        }
        return {tensor.name: tensor.shape for tensor in needed}, optional
