"""The output head: tied to the embedding or a matrix of its own, whatever the config says.

As transformers 5 loads it (``PreTrainedModel.tie_weights``): a head that differs from the
embedding is kept, though the config ties them; and where savers that store shared weights
once kept only the head, the head is the embedding.
"""

from __future__ import annotations

from dataclasses import replace

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.lfm2.config import Lfm2Config

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DIFFERS = "the head is written: it differs from the embedding, though config.json ties them"


def settle(checkpoint: Checkpoint, config: Lfm2Config) -> tuple[Checkpoint, Lfm2Config, list[str]]:
    """The checkpoint and config as they are meant, and what has to be said about it.

    Weights are read only where a tied head is saved beside the embedding.
    """
    embedding, head = checkpoint.tensors.get(EMBEDDING), checkpoint.tensors.get(HEAD)
    if not config.tied or head is None:
        return checkpoint, config, []
    if embedding is None:
        tensors = {EMBEDDING if n == HEAD else n: t for n, t in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=tensors), config, []
    if embedding.equals(head):
        return checkpoint, config, []
    return checkpoint, replace(config, tied=False), [DIFFERS]
