"""The output head: tied to the embedding or a matrix of its own, whatever the config says.

As transformers 5 loads it (``PreTrainedModel.tie_weights``): a head that differs from the
embedding is kept, though the config ties them; and where savers that store shared weights
once kept only the head, the head is the embedding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lfm2gguf.checkpoint import Adapter, Checkpoint
from lfm2gguf.errors import TensorError
from lfm2gguf.lfm2.config import Lfm2Config, is_tied

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# peft with ensure_weight_tying trains one pair of factors for both, and saves it twice: for the
# head transposed (tuners/lora/model.py, 0.21). Its forward pass has the delta once, its
# merge_and_unload adds it to the shared weight twice.
ACROSS = {"lora_A": "lora_embedding_B", "lora_B": "lora_embedding_A"}
REPEATED = "of the head, and repeats the embedding's factors, as ensure_weight_tying says"
MISSING = (
    "{0}: config.json says that the head is not tied (tie_word_embeddings or tie_embedding is "
    "false), and {1!r} is missing, of which transformers would make a random one; if the model was "
    "trained with a tied head, set the key to true, else save the checkpoint again, whole"
)
DIFFERS = "the head is written: it differs from the embedding, though config.json ties them"


def settle(
    checkpoint: Checkpoint, config: Lfm2Config
) -> tuple[Checkpoint, Lfm2Config, tuple[str, ...]]:
    """Return the checkpoint and config as they are meant, and notes on what was decided.

    Weights are read only where a tied head is saved beside the embedding.

    Raises:
        TensorError: the head is not tied, and is missing.

    """
    embedding, head = checkpoint.tensors.get(EMBEDDING), checkpoint.tensors.get(HEAD)
    if embedding and not head and not config.tied and checkpoint.has_head:
        raise TensorError(MISSING.format(checkpoint.path, HEAD))
    if not config.tied or head is None:
        return checkpoint, config, ()
    if embedding is None:
        tensors = {EMBEDDING if n == HEAD else n: t for n, t in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=tensors), config, ()
    if embedding.equals(head):
        return checkpoint, config, ()
    return checkpoint, replace(config, tied=False), (DIFFERS,)


def repeated(adapter: Adapter, base: Checkpoint) -> dict[str, str]:
    """Return the tensors of an adapter for a tied head that repeat the embedding's, and why."""
    embedding, head = (
        adapter.factors.get(weight.removesuffix(".weight"), {}) for weight in (EMBEDDING, HEAD)
    )
    is_pair = head.keys() == ACROSS.keys() and embedding.keys() == set(ACROSS.values())
    ties = adapter.config.get("ensure_weight_tying")
    if not (is_pair and ties and is_tied(base.config)):
        return {}
    if not all(np.array_equal(head[a].read().T, embedding[b].read()) for a, b in ACROSS.items()):
        return {}
    return dict.fromkeys(
        (name for name in adapter.tensors if name.startswith("lm_head.")), REPEATED
    )
