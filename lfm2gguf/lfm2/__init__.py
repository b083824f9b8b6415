"""The LFM2 family: what becomes of a checkpoint's names, shapes and settings in a GGUF."""

from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.family import (
    ARCHITECTURES,
    base_tensors,
    has_projector,
    make_plan,
    text_adapter,
    text_model,
)
from lfm2gguf.lfm2.loader_keys import Keys
from lfm2gguf.lfm2.lora import Adapted, check_deltas, find_deltas, summary
from lfm2gguf.lfm2.metadata import described, recorded
from lfm2gguf.lfm2.model_card import read_model_card
from lfm2gguf.lfm2.plan import Plan, PlannedTensor, Source

__all__ = [
    "ARCHITECTURES",
    "Adapted",
    "Keys",
    "Lfm2Config",
    "Plan",
    "PlannedTensor",
    "Source",
    "base_tensors",
    "check_deltas",
    "described",
    "find_deltas",
    "has_projector",
    "make_plan",
    "read_model_card",
    "recorded",
    "summary",
    "text_adapter",
    "text_model",
]
