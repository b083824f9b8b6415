"""Random models of true widths: kernels choose their tiles by them, and the example is narrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.making.checkpoints import MOE, Case, config, make

DENSE: dict[str, Any] = {  # LFM2-350M's
    "hidden_size": 1024, "intermediate_size": 4608,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
EXPERTS: dict[str, Any] = {  # LFM2-8B-A1B's, with 8 experts of 32
    "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792,
    "num_experts": 8, "num_experts_per_tok": 4,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
LAYERS = ["conv", "conv", "full_attention", "conv"]  # as they begin


def make_shapes(folder: Path) -> Iterator[Path]:
    """Write two checkpoints, four layers each, with the tests' own vocabulary."""
    layers = {"layer_types": LAYERS, "num_hidden_layers": len(LAYERS)}
    yield make(Case(config(**DENSE, **layers)), folder / "LFM2-350M-shapes")
    yield make(
        Case(MOE | EXPERTS | layers | {"num_dense_layers": 3}), folder / "LFM2-8B-A1B-shapes"
    )
