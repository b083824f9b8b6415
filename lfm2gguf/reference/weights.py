"""What the reference forward pass reads: a config of its own, and tensors by their HF names.

Nothing here is shared with the converter: both spellings of the config and both sets of
tensor names are read a second time, so that one mistake cannot cancel another.

Names and defaults from transformers (``models/lfm2``, version 5) for checkpoints, from
llama.cpp ``src/llama-arch.cpp`` and ``src/models/lfm2.cpp`` (commit 0c1e57098) for files.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import GGUFError, TensorError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.members import ARCHITECTURES
from lfm2gguf.quants import dequantize
from lfm2gguf.reference.experts import Routing, stacked

Array: TypeAlias = npt.NDArray[np.float32]

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
DENSE = "1_Dense/linear.weight"  # a retrieval model's, beside its checkpoint
CONV = "conv"
ATTENTION = "full_attention"


@dataclass(frozen=True)
class ReferenceConfig:
    """The numbers that the forward pass needs and the weights' shapes do not give."""

    layers: tuple[str, ...]  # "conv" or "full_attention"
    heads: int
    kv_heads: int
    norm_eps: float
    rope_theta: float
    tied: bool
    routing: Routing | None = None

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> ReferenceConfig:
        """Read a ``config.json`` in any of its spellings.

        Raises:
            UnsupportedError: it is another model's, scales rotary positions, or gives two bases.

        """
        if config.get("model_type", "lfm2") not in ("lfm2", "lfm2_moe"):
            raise UnsupportedError(
                f"config.json: model_type is {config['model_type']!r}; the reference computes "
                "LFM2's text models only"
            )
        return cls(
            layers=_layers(config),
            heads=int(config["num_attention_heads"]),
            kv_heads=int(config["num_key_value_heads"]),
            norm_eps=float(_first(config, ("norm_eps", "block_norm_eps"), 1e-5)),
            rope_theta=_rotary_base(config),
            tied=bool(_first(config, ("tie_embedding", "tie_word_embeddings"), True)),
            routing=Routing.from_huggingface(config),
        )

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> ReferenceConfig:
        """Read the metadata of a GGUF file; a layer without KV heads is a convolution.

        Raises:
            GGUFError: a key is missing.
            UnsupportedError: the file is not an LFM2.

        """
        if file.architecture not in ARCHITECTURES:
            raise UnsupportedError(
                f"{file.path}: its architecture is {file.architecture!r}; the reference computes "
                "LFM2's only"
            )

        def number(key: str) -> Any:
            value = file.get(f"{file.architecture}.{key}")
            if value is None:
                key = f"{file.architecture}.{key}"
                raise GGUFError(
                    f"{file.path}: {key} is missing from the metadata; convert it again"
                )
            return value

        kv_heads = [int(n) for n in number("attention.head_count_kv")]
        return cls(
            layers=tuple(ATTENTION if n else CONV for n in kv_heads),
            heads=int(number("attention.head_count")),
            kv_heads=max(kv_heads),
            norm_eps=float(number("attention.layer_norm_rms_epsilon")),
            rope_theta=float(number("rope.freq_base")),
            tied=True,
            routing=Routing(number("expert_used_count")) if "moe" in file.architecture else None,
        )


def _rotary_base(config: Mapping[str, Any]) -> float:
    """Find ``rope_theta`` in every object of the config that is about rotary positions."""
    places: list[Mapping[str, Any]] = [config]
    for key in ("rope_parameters", "rope_scaling"):
        settings = config.get(key) or {}
        places += [settings, *(own for own in settings.values() if isinstance(own, Mapping))]
    for place in places[1:]:
        if (kind := place.get("rope_type", place.get("type"))) not in (None, "default"):
            raise UnsupportedError(
                f"config.json: rope_type is {kind!r}; LFM2 members use 'default'"
            )
    bases = {float(p["rope_theta"]) for p in places if p.get("rope_theta") is not None}
    if len(bases) > 1:
        raise UnsupportedError(
            f"config.json: rope_theta is {' and '.join(map(str, sorted(bases)))}; give it once"
        )
    return bases.pop() if bases else 1e6


def _layers(config: Mapping[str, Any]) -> tuple[str, ...]:
    if config.get("layer_types"):
        return tuple(config["layer_types"])
    count = int(config["num_hidden_layers"])
    attention = config.get("full_attn_idxs")
    chosen = range(count) if attention is None else attention
    return tuple(ATTENTION if i in chosen else CONV for i in range(count))


def _first(config: Mapping[str, Any], keys: tuple[str, ...], default: Any) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), default)


@dataclass(frozen=True)
class Weights:
    """Tensors by Hugging Face name, widened to float32 as they are read.

    ``read(name, start, stop)`` gives rows ``start:stop`` of the first axis.
    """

    config: ReferenceConfig
    shapes: Mapping[str, tuple[int, ...]]
    read_rows: Callable[[str, int, int], Array]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Weights:
        """Read from a Hugging Face folder."""
        config = ReferenceConfig.from_huggingface(checkpoint.config)
        shapes, read = stacked(checkpoint)
        return cls(config, shapes, read)

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Weights:
        """Read from a GGUF file, dequantized.

        Raises:
            GGUFError: a key is missing.
            UnsupportedError: the file is not an LFM2.

        """
        config = ReferenceConfig.from_gguf(file)
        names = gguf_names(len(config.layers))
        if "output_norm.weight" in file.tensors:  # what older files call it
            names["model.embedding_norm.weight"] = "output_norm.weight"
        names = {ours: theirs for ours, theirs in names.items() if theirs in file.tensors}

        def read(name: str, start: int, stop: int) -> Array:
            info = file.tensors[names[name]]
            if len(info.shape) == 1:
                return dequantize(file.data(info.name), info.type, info.shape)[start:stop]
            shape = (stop - start, *info.shape[1:])
            rows = info.n_rows // info.shape[0]  # of an expert, where they are stacked
            return dequantize(file.data(info.name, start * rows, stop * rows), info.type, shape)

        shapes = {ours: file.tensors[theirs].shape for ours, theirs in names.items()}
        return cls(config, shapes, read)

    def replaced(self, names: Container[str], read: Callable[[str, int, int], Array]) -> Weights:
        """Return the model with the tensors ``names`` read another way."""

        def rows(name: str, start: int, stop: int) -> Array:
            return (read if name in names else self.read)(name, start, stop)

        return Weights(self.config, self.shapes, rows)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Read rows ``start:stop`` of a tensor's first axis, float32.

        Raises:
            TensorError: there is no tensor of this name.

        """
        if name not in self.shapes:
            raise TensorError(
                f"the model does not have the tensor {name}, which the forward pass needs; is it "
                "complete?"
            )
        rows = self.shapes[name][0]
        return self.read_rows(name, start, rows if stop is None else min(stop, rows))

    @property
    def head(self) -> str:
        """Name of the output matrix: ``lm_head`` where there is one, else the embedding.

        transformers 5 decides likewise: a head that is present is used, whatever the
        config says about tying (``PreTrainedModel.tie_weights``).
        """
        if HEAD in self.shapes:
            return HEAD
        if not self.config.tied:
            raise TensorError(
                f"config.json: says the head is not tied, but {HEAD} is missing; download or save "
                "the checkpoint again"
            )
        return EMBEDDING

    @property
    def vocabulary(self) -> int:
        """Count the rows of the output matrix: the width of a position's logits."""
        return self.shapes[self.head][0]


_GGUF_NAMES = {
    EMBEDDING: "token_embd.weight",
    "model.embedding_norm.weight": "token_embd_norm.weight",
    HEAD: "output.weight",
    DENSE: "dense_2.weight",
}
_GGUF_LAYER_NAMES = {
    "operator_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.out_proj.weight": "attn_output.weight",
    "self_attn.q_layernorm.weight": "attn_q_norm.weight",
    "self_attn.k_layernorm.weight": "attn_k_norm.weight",
    "conv.conv.weight": "shortconv.conv.weight",
    "conv.in_proj.weight": "shortconv.in_proj.weight",
    "conv.out_proj.weight": "shortconv.out_proj.weight",
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
    "feed_forward.gate.weight": "ffn_gate_inp.weight",
    "feed_forward.expert_bias": "exp_probs_b.bias",
    "feed_forward.experts.w1.weight": "ffn_gate_exps.weight",
    "feed_forward.experts.w2.weight": "ffn_down_exps.weight",
    "feed_forward.experts.w3.weight": "ffn_up_exps.weight",
}


def gguf_names(layers: int) -> dict[str, str]:
    """Pair every Hugging Face name of an LFM2 with its name in a GGUF file.

    Experts are stacked, under names that no checkpoint has (see ``reference/experts.py``).
    """
    names = dict(_GGUF_NAMES)
    for i in range(layers):
        for theirs, ours in _GGUF_LAYER_NAMES.items():
            names[f"model.layers.{i}.{theirs}"] = f"blk.{i}.{ours}"
    return names
