"""Drafts of LFM2.5 (DSpark): they guess the next tokens of a larger model, the target.

llama.cpp calls them dflash: attention layers over the target's states, and a head that corrects
each guess by the one before. They have the target's tokenizer, and mostly its embedding and head
too. See conversion/qwen.py (``DFlashModel``, ``DSparkModel``) and src/models/dflash.cpp of
llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, OptionError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.config import COPY, get
from lfm2gguf.lfm2.dense import F32, U32, Table, expand
from lfm2gguf.lfm2.metadata import Vocabulary, vocabulary
from lfm2gguf.lfm2.plan import PlannedTensor, Source

Weights = NDArray[np.float32]
# As in dense.py: GGUF name: (name in the checkpoint, shape there).
OUTER: Table = {
    "fc": ("model.fc", ("hidden", "targets")),
    "enc.output_norm": ("model.hidden_norm", ("hidden",)),
    "output_norm": ("model.norm", ("hidden",)),
    "markov_w1": ("model.markov_head.markov_w1", ("vocab", "rank")),
    "markov_w2": ("model.markov_head.markov_w2", ("vocab", "rank")),
}
EMBEDDING: Table = {"token_embd": ("model.embed_tokens", ("vocab", "hidden"))}
HEAD = "model.lm_head.weight"
LAYER: Table = {
    "attn_norm": ("input_layernorm", ("hidden",)),
    "attn_q": ("self_attn.q_proj", ("q", "hidden")),
    "attn_k": ("self_attn.k_proj", ("kv", "hidden")),
    "attn_v": ("self_attn.v_proj", ("kv", "hidden")),
    "attn_output": ("self_attn.o_proj", ("hidden", "q")),
    "attn_q_norm": ("self_attn.q_norm", ("head",)),
    "attn_k_norm": ("self_attn.k_norm", ("head",)),
    "ffn_norm": ("post_attention_layernorm", ("hidden",)),
    "ffn_gate": ("mlp.gate_proj", ("ffn", "hidden")),
    "ffn_up": ("mlp.up_proj", ("ffn", "hidden")),
    "ffn_down": ("mlp.down_proj", ("hidden", "ffn")),
}
ROTATED = ("attn_q.weight", "attn_k.weight", "attn_q_norm.weight", "attn_k_norm.weight")
CONFIDENCE = "model.confidence_head.proj"
# What the published drafts do not have, and so nothing here writes.
ASSUMED: dict[str, object] = {
    "markov_head_type": "vanilla",
    "attention_bias": False,
    "use_sliding_window": False,
    "hidden_act": "silu",
    "rope_scaling": None,
    "draft_vocab_size": None,
}


@dataclass(frozen=True)
class Drafter:
    """A draft, its config parsed; ``targets`` are the target's layers whose states it reads."""

    checkpoint: Checkpoint
    sizes: Mapping[str, int]
    n_layers: int
    targets: tuple[int, ...]
    mask_token: int | None
    architecture: ClassVar[str] = "dflash"
    leading: ClassVar[tuple[str, ...]] = ()
    n_experts: ClassVar[int] = 0

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Drafter:
        """Parse the config of a draft, which has no tokenizer of its own.

        Raises:
            OptionError: its target is not named.
            CheckpointError: a key is missing or not valid.
            UnsupportedError: a key asks for what the published drafts do not have.

        """
        config = checkpoint.config
        _check(config)
        hidden, head = (get(config, int, key) for key in ("hidden_size", "head_dim"))
        flash = get(config, dict, "dflash_config")
        targets = get(flash, list, "target_layer_ids", file="config.json: dflash_config")
        if not targets or not all(isinstance(i, int) and i >= 0 for i in targets):
            raise CheckpointError(
                f"config.json: target_layer_ids is {targets!r:.200}, not layers' numbers; {COPY}"
            )
        rank = get(config, int, "markov_rank")
        heads = get(config, int, "num_attention_heads")
        names = {n if n.startswith("model.") else f"model.{n}": n for n in checkpoint.tensors}
        tensors = {name: checkpoint.tensors[own] for name, own in names.items()}
        return cls(
            replace(checkpoint, tensors=tensors),
            {
                "1": 1,
                "hidden": hidden,
                "head": head,
                "q": heads * head,
                "kv": get(config, int, "num_key_value_heads", default=heads) * head,
                "ffn": get(config, int, "intermediate_size"),
                "vocab": get(config, int, "vocab_size"),
                "rank": rank,
                "hidden and rank": hidden + rank,
                "targets": hidden * len(targets),
            },
            get(config, int, "num_hidden_layers"),
            tuple(targets),
            get(flash, int, "mask_token_id", default=None, least=0),
        )

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its source."""
        there = self.checkpoint.tensors
        own = "model.embed_tokens.weight" in there  # else the target's is used
        yield from expand(OUTER | EMBEDDING if own else OUTER, self.sizes)
        if weight := there.get(f"{CONFIDENCE}.weight"):
            kept = GGMLType.BF16 if weight.dtype == "BF16" else GGMLType.F32
            shape = (1, self.sizes["hidden and rank"])
            source = Source(f"{CONFIDENCE}.weight", shape)
            yield PlannedTensor("conf_proj.weight", shape[1:], (source,), kept=kept)
        if f"{CONFIDENCE}.bias" in there:
            yield PlannedTensor("conf_proj.bias", (1,), (Source(f"{CONFIDENCE}.bias", (1,)),))
        neox = get(self.checkpoint.config, bool, "rope_is_neox_style", default=True)
        for i in range(self.n_layers):
            for tensor in expand(LAYER, self.sizes, f"blk.{i}.", f"model.layers.{i}."):
                if not neox and tensor.name.endswith(ROTATED):
                    yield replace(tensor, compute=partial(halves, self.sizes["head"]))
                else:
                    yield tensor

    def left_out(self) -> Mapping[str, str]:
        """Return the head: llama.cpp's converter takes none of a draft with all tokens."""
        return {HEAD: "the target's head is used, or the embedding"}

    def metadata(self) -> Metadata:
        """Return the keys of the architecture."""
        config, sizes = self.checkpoint.config, self.sizes
        keys: Metadata = {
            "block_count": Value(U32, self.n_layers),
            "context_length": Value(U32, get(config, int, "max_position_embeddings")),
            "embedding_length": Value(U32, sizes["hidden"]),
            "feed_forward_length": Value(U32, sizes["ffn"]),
            "attention.head_count": Value(U32, sizes["q"] // sizes["head"]),
            "attention.head_count_kv": Value(U32, sizes["kv"] // sizes["head"]),
        }
        flash = config["dflash_config"]
        causal = get(config, bool, "is_causal", default=get(flash, bool, "causal", default=None))
        if config.get("is_causal") is False:  # stands here in the converter's order
            keys["attention.causal"] = Value(ValueType.BOOL, False)
        keys |= {
            "rope.freq_base": Value(F32, get(config, float, "rope_theta")),
            "attention.layer_norm_rms_epsilon": Value(F32, get(config, float, "rms_norm_eps")),
            "attention.key_length": Value(U32, sizes["head"]),
            "attention.value_length": Value(U32, sizes["head"]),
            "block_size": Value(U32, get(flash, int, "block_size", default=_block(config))),
            "target_layers": Value(ValueType.ARRAY, [i + 1 for i in self.targets], ValueType.INT32),
        }
        if causal is not None:
            keys["attention.causal"] = Value(ValueType.BOOL, causal)
        anchor = get(config, bool, "sample_from_anchor", default=True)
        confident = any(name.startswith(CONFIDENCE) for name in self.checkpoint.tensors)
        keys["sample_from_anchor"] = Value(ValueType.BOOL, anchor)
        keys["has_confidence_head"] = Value(ValueType.BOOL, confident)
        return {f"{self.architecture}.{key}": value for key, value in keys.items()}

    def vocabulary(self, pre: str | None) -> Vocabulary:
        """Return the target's ``tokenizer.*`` keys, and the token that stands for a guess."""
        if self.checkpoint.tokenizer_path is None:
            raise OptionError(
                f"{self.checkpoint.path}: is a draft, which has the tokenizer of the model that it "
                "drafts for; name that model with target_model (--target)"
            )
        keys = vocabulary(self.checkpoint, self.sizes["vocab"], pre).keys
        if self.mask_token is not None:
            keys["tokenizer.ggml.mask_token_id"] = Value(U32, self.mask_token)
        return Vocabulary(keys)  # without notes: the target's own file has told them

    def notes(self) -> list[str]:
        """Return what a draft is for."""
        return ["a draft: it guesses tokens for its target, and does not run alone"]


def halves(head: int, weights: Weights) -> Weights:
    """Reorder the rows of each head: the even ones, then the odd ones, as NeoX rotates them."""
    pairs = weights.reshape(-1, head // 2, 2, *weights.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weights.shape)


def _block(config: Mapping[str, Any]) -> int:
    block: int = get(config, int, "block_size", default=16)
    return block


def _check(config: Mapping[str, Any]) -> None:
    for key, value in ASSUMED.items():
        if config.get(key) not in (None, value):
            raise UnsupportedError(
                f"config.json: {key} is {config[key]!r:.200}; only {value!r} is converted"
            )
    if kinds := set(map(str, config.get("layer_types") or ())) - {"full_attention"}:
        raise UnsupportedError(
            f"config.json: layer_types has {sorted(kinds)[0]!r}; a draft of LFM2.5 has only "
            "'full_attention'"
        )
