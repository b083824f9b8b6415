"""The forward pass of the retrieval models, in NumPy: ColBERT and Embedding.

Attention and convolution look both ways; then Sentence Transformers' modules: a pooling, a
dense layer. Names and settings are read a second time, as in ``reference/weights.py``. Facts: the
models' own code beside their weights, src/models/lfm2.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lfm2gguf.checkpoint import Checkpoint, read_json, read_json_list
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.reference.forward import Ids, Progress, Reference
from lfm2gguf.reference.operations import SCORE_BYTES
from lfm2gguf.reference.weights import DENSE, Array, ReferenceConfig, Weights

ARCHITECTURES = ("Lfm2Model", "Lfm2BidirectionalModel")
POOLINGS = ("none", "mean", "cls", "last")  # by llama.cpp's number (enum llama_pooling_type)
SPELLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


@dataclass(frozen=True)
class Settings:
    """What makes a retrieval model of a text model."""

    bidirectional: bool
    pooling: str
    dense: bool

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Settings:
        """Read config.json and the pooling that modules.json names.

        Raises:
            UnsupportedError: the pooling is not mean, cls or last.

        """
        bidirectional = "Bidirectional" in str(checkpoint.config.get("architectures"))
        modules = read_json_list(checkpoint.path / "modules.json")
        folders = [m["path"] for m in modules if str(m["type"]).endswith("Pooling")]
        pooling = _pooling(checkpoint.path / folders[0] / "config.json") if folders else "none"
        return cls(bidirectional, pooling, DENSE in checkpoint.tensors)

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Settings:
        """Read the metadata of a file."""
        key = f"{file.architecture}.pooling_type"
        pooling = file.get(key, 0)
        if not isinstance(pooling, int) or not 0 <= pooling < len(POOLINGS):
            raise UnsupportedError(
                f"{file.path}: {key} is {pooling!r}, which names no pooling; convert it again"
            )
        causal = file.get(f"{file.architecture}.attention.causal", True)
        return cls(causal is False, POOLINGS[pooling], "dense_2.weight" in file.tensors)


def is_retrieval(checkpoint: Checkpoint) -> bool:
    """Say whether a checkpoint is that of a model without a head."""
    return any(name in ARCHITECTURES for name in checkpoint.config.get("architectures") or ())


def prefixes(checkpoint: Checkpoint) -> tuple[str, str]:
    """Read what the model was trained to see before a query and before a document.

    Sentence Transformers' ``prompts``, or PyLate's prefixes: config_sentence_transformers.json.
    """
    about = read_json(checkpoint.path / "config_sentence_transformers.json")
    prompts = about.get("prompts") or {}
    query, document = (
        str(prompts.get(kind) or about.get(f"{kind}_prefix") or "")
        for kind in ("query", "document")
    )
    return query, document


def _pooling(file: Path) -> str:
    config = read_json(file)
    old = [SPELLINGS.get(k[13:], k) for k, on in config.items() if k[:13] == "pooling_mode_" and on]
    new = str(config.get("pooling_mode"))
    name = old[0] if len(old) == 1 else SPELLINGS.get(new, new)
    if name not in POOLINGS or len(old) > 1:
        raise UnsupportedError(
            f"{file}: pooling by {' and '.join(old) or new}; the reference pools by mean, cls or "
            "last only"
        )
    return name


class RetrievalReference(Reference):
    """The forward pass from tokens to vectors."""

    def __init__(self, weights: Weights, settings: Settings, *, finite_only: bool = True) -> None:
        super().__init__(weights, finite_only=finite_only)
        self.settings = settings

    def of(self, weights: Weights) -> RetrievalReference:
        """Return the same forward pass over other weights."""
        return RetrievalReference(weights, self.settings, finite_only=self._finite_only)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> RetrievalReference:
        """Read a folder whose tensors are named without ``model.``."""
        names = {n if "/" in n else f"model.{n}": n for n in checkpoint.tensors}
        weights = Weights(
            ReferenceConfig.from_huggingface(checkpoint.config),
            {ours: checkpoint.tensors[theirs].shape for ours, theirs in names.items()},
            lambda name, start, stop: checkpoint.read(names[name], start, stop),
        )
        return cls(weights, Settings.from_checkpoint(checkpoint))

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> RetrievalReference:
        """Read a file, dequantized."""
        return cls(Weights.from_gguf(file), Settings.from_gguf(file))

    def embed(self, sequences: Sequence[Ids], progress: Progress | None = None) -> list[Array]:
        """Compute each sequence's vectors: (1, width) where the model pools, else (tokens, width).

        They are not normalized.

        Raises:
            TensorError: as :meth:`Reference.states`.

        """
        lengths = [len(ids) for ids in sequences]
        states = self.states(sequences, [np.arange(n) for n in lengths], progress)
        return self.vectors(states, lengths)

    def vectors(self, states: Array, lengths: Sequence[int]) -> list[Array]:
        """Compute what :meth:`embed` makes of the final states (tokens of all sequences, H)."""
        pooled = self.pooled(states, lengths)
        if DENSE not in self.weights.shapes:
            return pooled
        dense = self.weights.read(DENSE)
        return [vector @ dense.T for vector in pooled]

    def pooled(self, states: Array, lengths: Sequence[int]) -> list[Array]:
        """Compute what the dense layer sees of the final states, sequence by sequence."""
        parts = np.split(states, np.cumsum(lengths)[:-1])
        return [pool(part, self.settings.pooling) for part in parts]

    def _convolve(self, x: Array, kernel: Array) -> Array:
        if self.settings.bidirectional:
            return centred_convolution(x, kernel)
        return super()._convolve(x, kernel)

    def _attend(self, q: Array, k: Array, v: Array) -> Array:
        if self.settings.bidirectional:
            return full_attention(q, k, v)
        return super()._attend(q, k, v)


def pool(x: Array, pooling: str) -> Array:
    """Pool (T, H) to (1, H), or leave it as it is."""
    ways: dict[str, Array] = {
        "none": x,
        "mean": x.mean(axis=0, keepdims=True),
        "cls": x[:1],
        "last": x[-1:],
    }
    return ways[pooling]


def centred_convolution(x: Array, kernel: Array) -> Array:
    """Convolve (T, H) with (H, L) depthwise, L odd: the middle tap meets the token."""
    half = kernel.shape[1] // 2
    padded = np.pad(x, ((half, half), (0, 0)))
    y = np.zeros_like(x)
    for tap in range(kernel.shape[1]):
        y += padded[tap : tap + len(x)] * kernel[:, tap]
    return y


def full_attention(q: Array, k: Array, v: Array) -> Array:
    """Attend without a mask: q (T, heads, D), k and v (T, kv_heads, D) -> (T, heads * D)."""
    tokens, heads, width = q.shape
    kv_heads = k.shape[1]
    keys, values = k.transpose(1, 2, 0), v.transpose(1, 0, 2)  # (kv, D, T), (kv, T, D)
    out = np.empty((tokens, heads, width), np.float32)
    block = max(1, SCORE_BYTES // (4 * heads * tokens))
    for start in range(0, tokens, block):
        part = q[start : start + block].reshape(-1, kv_heads, heads // kv_heads, width)
        # The query heads of a key head are stacked: (kv, n * group, D).
        stacked = part.transpose(1, 0, 2, 3).reshape(kv_heads, -1, width)
        scores = stacked @ keys * np.float32(width**-0.5)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ values).reshape(kv_heads, len(part), -1, width)
        out[start : start + block] = mixed.transpose(1, 0, 2, 3).reshape(len(part), heads, width)
    return out.reshape(tokens, heads * width)
