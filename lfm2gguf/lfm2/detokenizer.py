"""The audio detokenizer of LFM2.5-Audio (its folder ``audio_detokenizer``), a small LFM2.

It has a sliding window, no text, and a last layer that makes spectra: llama.cpp takes embeddings
in and gives embeddings out. The embedding of the codes and the inverse transform of the spectra
are left to whoever runs it. See conversion/lfm2.py (``LFM25AudioTokenizer``) and
src/models/lfm2.cpp of llama.cpp, commit 0c1e57098; names are those of liquid-audio 1.3.0
(detokenizer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.config import get
from lfm2gguf.lfm2.dense import U32, Dense
from lfm2gguf.lfm2.metadata import Vocabulary
from lfm2gguf.lfm2.plan import PlannedTensor, Source

SLIDING = "sliding_attention"
LEFT_OUT = {
    "emb.emb.weight": "the codes' embedding: llama.cpp gets embeddings, not codes",
    "istft.window": "the window of the inverse transform, which is not part of llama.cpp",
}


def renamed(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """Return the checkpoint as that of a dense LFM2, and what of it is not part of that.

    Sliding attention becomes attention: the window is a key of its own.
    """
    config = dict(checkpoint.config)
    if isinstance(kinds := config.get("layer_types"), list):
        config["layer_types"] = ["full_attention" if k == SLIDING else k for k in kinds]
    tensors = {
        f"model.{name.removeprefix('lfm.')}" if name.startswith("lfm.") else name: info
        for name, info in checkpoint.tensors.items()
    }
    return replace(checkpoint, config=config, tensors=tensors), LEFT_OUT


@dataclass(frozen=True)
class Detokenizer(Dense):
    """A dense LFM2 with a window and a last layer, over embeddings instead of tokens."""

    window: int  # tokens
    output_size: int

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Detokenizer:
        """Parse the config of a :func:`renamed` checkpoint."""
        model = Dense.open(checkpoint)
        window, output_size = (
            get(checkpoint.config, int, key) for key in ("sliding_window", "output_size")
        )
        return cls(model.checkpoint, model.config, model.decided, window, output_size)

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its source."""
        yield from super().tensors()
        shape = (self.output_size, self.config.hidden_size)
        yield PlannedTensor("dense_2.weight", shape, (Source("lin.weight", shape),))
        yield PlannedTensor("dense_2.bias", shape[:1], (Source("lin.bias", shape[:1]),))

    def metadata(self) -> Metadata:
        """Return the keys of the architecture."""
        own = {
            "attention.sliding_window": Value(U32, self.window),
            "embedding_length_out": Value(U32, self.output_size),
        }
        return super().metadata() | self.named(own)

    def vocabulary(self, pre: str | None) -> Vocabulary:
        """Return the key that says there is no text."""
        return Vocabulary({"tokenizer.ggml.model": Value(ValueType.STRING, "none")})

    def notes(self) -> list[str]:
        """Return what was decided about the head: without text, no template matters."""
        return list(self.decided)
