"""What the reference needs of a mixture of experts: where its experts are, and who takes them.

Follows transformers (``models/lfm2_moe/modeling_lfm2_moe.py``, version 5). However experts are
saved, they are seen as a GGUF has them, stacked: ``feed_forward.experts.w1.weight`` is (experts,
F, H). They are read one at a time: memory is one expert and not the layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import Checkpoint

Array: TypeAlias = npt.NDArray[np.float32]
Chosen: TypeAlias = npt.NDArray[np.intp]
ReadRows: TypeAlias = Callable[[str, int, int], Array]

ONE = re.compile(r"(?P<experts>.+\.experts\.)(?P<i>\d+)\.(?P<matrix>w[123])\.weight")
PACKED = re.compile(r"(?P<experts>.+\.experts\.)(?P<which>gate_up_proj|down_proj)")


@dataclass(frozen=True)
class Routing:
    """How a mixture of experts chooses and weighs them."""

    used: int
    normalized: bool = True
    scaling: float = 1.0

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> Routing | None:
        """Read a ``config.json``; None for a dense model."""
        if config.get("model_type") != "lfm2_moe":
            return None
        return cls(
            used=int(config["num_experts_per_tok"]),
            normalized=bool(config.get("norm_topk_prob", True)),
            scaling=float(config.get("routed_scaling_factor", 1.0)),
        )

    def route(self, logits: Array, bias: Array | None) -> tuple[Chosen, Array]:
        """Choose experts for the gate's logits (N, experts): their ids (N, used) and weights.

        The bias decides who is chosen, and has no part in the weights.
        """
        with np.errstate(over="ignore"):
            scores = np.reciprocal(1 + np.exp(-logits), dtype=np.float32)
        ranked = scores if bias is None else scores + bias
        chosen = np.argsort(-ranked, axis=1, kind="stable")[:, : self.used]
        weights: Array = np.take_along_axis(scores, chosen, axis=1)
        if self.normalized:
            weights /= weights.sum(axis=1, keepdims=True) + np.float32(1e-6)
        weights *= np.float32(self.scaling)
        return chosen, weights


def stacked(checkpoint: Checkpoint) -> tuple[dict[str, tuple[int, ...]], ReadRows]:
    """Return a checkpoint's shapes, its experts stacked, and how rows of its tensors are read.

    ``read(name, start, stop)`` gives rows of the first axis: of stacked experts, experts.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    packed: dict[str, tuple[str, slice]] = {}  # where in a packed expert the rows are
    for name, info in checkpoint.tensors.items():
        if one := ONE.fullmatch(name):
            whole = f"{one['experts']}{one['matrix']}.weight"
            count = max(int(one["i"]) + 1, *shapes.get(whole, (0,))[:1])
            shapes[whole] = (count, *info.shape)
        elif pack := PACKED.fullmatch(name):
            count, rows, columns = info.shape
            half = rows // 2 if pack["which"] == "gate_up_proj" else rows
            for i, matrix in enumerate(("w1", "w3") if half < rows else ("w2",)):
                whole = f"{pack['experts']}{matrix}.weight"
                shapes[whole] = (count, half, columns)
                packed[whole] = (name, slice(i * half, (i + 1) * half))
        else:
            shapes[name] = info.shape

    def read(name: str, start: int, stop: int) -> Array:
        if name in checkpoint.tensors:
            return checkpoint.read(name, start, stop)
        if name in packed:
            source, rows = packed[name]
            return checkpoint.read(source, start, stop)[:, rows]
        experts, matrix = name.removesuffix(".weight").rsplit(".", 1)
        names = [f"{experts}.{i}.{matrix}.weight" for i in range(start, stop)]
        return np.stack([checkpoint.read(expert) for expert in names])

    return shapes, read
