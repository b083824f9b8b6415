"""What plain rounding does to given weights: the measure of how far a sound file may be off."""

from __future__ import annotations

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize
from lfm2gguf.reference import Array


def plainly_rounded(weights: Array, type: GGMLType) -> Array:
    """Return weights (..., n), float32, as a type stores them without an importance matrix.

    A type that demands importance is given that of equal columns.
    """
    equal = np.ones(weights.shape[-1], np.float32) if CODECS[type].needs_importance else None
    rounded: Array = dequantize(quantize(weights, type, equal), type, weights.shape)
    return rounded
