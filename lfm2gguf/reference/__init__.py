"""The independent forward pass: what a checkpoint computes, in float32, layer by layer.

Nothing here is shared with the converter (:mod:`lfm2gguf.lfm2`): a mistake made once must not
cancel itself.
"""

from lfm2gguf.reference.adapter import AdaptedWeights, adapted
from lfm2gguf.reference.decoder import Decoder
from lfm2gguf.reference.forward import Ids, Multiplier, Reference, groups_of, multiplier
from lfm2gguf.reference.retrieval import RetrievalReference, Settings, is_retrieval, prefixes
from lfm2gguf.reference.steps import Steps
from lfm2gguf.reference.weights import (
    DENSE,
    EMBEDDING,
    HEAD,
    Array,
    ReferenceConfig,
    Weights,
    gguf_names,
)

__all__ = [
    "DENSE",
    "EMBEDDING",
    "HEAD",
    "AdaptedWeights",
    "Array",
    "Decoder",
    "Ids",
    "Multiplier",
    "Reference",
    "ReferenceConfig",
    "RetrievalReference",
    "Settings",
    "Steps",
    "Weights",
    "adapted",
    "gguf_names",
    "groups_of",
    "is_retrieval",
    "multiplier",
    "prefixes",
]
