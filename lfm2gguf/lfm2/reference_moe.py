"""What the reference needs of a mixture of experts: which experts a token takes, and their weights.

Follows transformers (``models/lfm2_moe/modeling_lfm2_moe.py``, version 5). Experts are read one
at a time, however they are saved: memory is one expert and not the layer.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.lfm2.reference_weights import Array, Routing, Weights

Chosen: TypeAlias = npt.NDArray[np.intp]


def route(routing: Routing, logits: Array, bias: Array | None) -> tuple[Chosen, Array]:
    """Choose experts for the gate's logits (N, experts): theirs ids (N, used) and weights.

    The bias decides who is chosen, and has no part in the weights.
    """
    with np.errstate(over="ignore"):
        scores = np.reciprocal(1 + np.exp(-logits), dtype=np.float32)
    ranked = scores if bias is None else scores + bias
    chosen = np.argsort(-ranked, axis=1, kind="stable")[:, : routing.used]
    weights = np.take_along_axis(scores, chosen, axis=1)
    if routing.normalized:
        weights /= weights.sum(axis=1, keepdims=True) + np.float32(1e-6)
    weights *= np.float32(routing.scaling)
    return chosen, weights


def read_expert(weights: Weights, name: str, i: int) -> tuple[Array, Array, Array]:
    """Matrices w1, w2 and w3 of expert ``i``; ``name`` ends with ``feed_forward.experts.``.

    Raises TensorError where the model has no such expert.
    """
    if f"{name}gate_up_proj" in weights.shapes:  # as transformers 5 computes with them
        both = weights.read(f"{name}gate_up_proj", i, i + 1)[0]
        w1, w3 = np.split(both, 2)
        return w1, weights.read(f"{name}down_proj", i, i + 1)[0], w3
    if f"{name}w1.weight" in weights.shapes:  # stacked, as in a GGUF
        w1, w2, w3 = (weights.read(f"{name}w{m}.weight", i, i + 1)[0] for m in (1, 2, 3))
        return w1, w2, w3
    w1, w2, w3 = (weights.read(f"{name}{i}.w{m}.weight") for m in (1, 2, 3))
    return w1, w2, w3
