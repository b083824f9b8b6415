"""Small mixtures of experts whose routing matters: bias, normalization and scaling vary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.making.checkpoints import MOE, Case, make, save, weights

IDS = [1, 17, 254, 33, 99, 120, 7, 64, 201, 18, 5, 77]
SHOWN = 7  # every seventh logit is kept
CASES: dict[str, Mapping[str, Any]] = {
    "as released": MOE,
    "weights as they are": MOE | {"norm_topk_prob": False},
    "scaled": MOE | {"routed_scaling_factor": 2.5, "num_experts_per_tok": 3},
    "one expert": MOE | {"num_experts_per_tok": 1, "num_dense_layers": 0},
}


def wide_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Random weights, larger than the usual ones so that the experts' answers count."""
    made = weights(config)
    return {n: x if "norm" in n else x * np.float32(5 if "gate" in n or "bias" in n else 3)
            for n, x in made.items()}  # fmt: skip


def make_moe(config: Mapping[str, Any], folder: Path) -> Path:
    """A checkpoint in float32."""
    make(Case(config, dtype="F32"), folder)
    save(folder, wide_weights(config), "F32")
    return folder
