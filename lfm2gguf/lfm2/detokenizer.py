"""The audio detokenizer of LFM2.5-Audio (its folder ``audio_detokenizer``), a small LFM2.

It has a sliding window, no text, and a last layer that makes spectra: llama.cpp takes embeddings
in and gives embeddings out. The embedding of the codes and the inverse transform of the spectra
are left to whoever runs it. See conversion/lfm2.py (``LFM25AudioTokenizer``) and
src/models/lfm2.cpp of llama.cpp, commit 0c1e57098; names are those of liquid-audio 1.3.0
(detokenizer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2 import dense
from lfm2gguf.lfm2.config import Lfm2Config, get
from lfm2gguf.lfm2.plan import PlannedTensor, Source

ARCHITECTURE, LEADING = dense.ARCHITECTURE, dense.LEADING
SLIDING = "sliding_attention"
KEYS = {"attention.sliding_window": "sliding_window", "embedding_length_out": "output_size"}
LEFT_OUT = {
    "emb.emb.weight": "the codes' embedding: llama.cpp gets embeddings, not codes",
    "istft.window": "the window of the inverse transform, which is not part of llama.cpp",
}


def renamed(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """The checkpoint as that of a dense LFM2; its sliding attention is attention with a window."""
    config = dict(checkpoint.config)
    if isinstance(kinds := config.get("layer_types"), list):
        config["layer_types"] = ["full_attention" if k == SLIDING else k for k in kinds]
    tensors = {
        f"model.{name.removeprefix('lfm.')}" if name.startswith("lfm.") else name: info
        for name, info in checkpoint.tensors.items()
    }
    return replace(checkpoint, config=config, tensors=tensors), LEFT_OUT


def tensors(config: Lfm2Config, checkpoint: Checkpoint) -> Iterator[PlannedTensor]:
    """Every tensor of the file, with its source."""
    yield from dense.tensors(config, checkpoint)
    shape = (get(checkpoint.config, int, "output_size"), config.hidden_size)
    yield PlannedTensor("dense_2.weight", shape, (Source("lin.weight", shape),))
    yield PlannedTensor("dense_2.bias", shape[:1], (Source("lin.bias", shape[:1]),))


left_out = dense.left_out


def metadata(config: Lfm2Config, checkpoint: Checkpoint) -> Metadata:
    """The keys of the architecture, in the order in which llama.cpp's converter writes them."""
    own = {
        f"{ARCHITECTURE}.{key}": Value(ValueType.UINT32, get(checkpoint.config, int, name))
        for key, name in KEYS.items()
    }
    return dense.metadata(config, checkpoint) | own


def vocabulary(checkpoint: Checkpoint, n_rows: int, pre: str | None) -> Metadata:
    """There is no text."""
    return {"tokenizer.ggml.model": Value(ValueType.STRING, "none")}
