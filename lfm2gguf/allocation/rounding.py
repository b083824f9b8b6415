"""What each type loses of a tensor: the weighted error of some of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.quants import dequantize, quantize
from lfm2gguf.reference import Array, Weights

SAMPLED = 1 << 20  # weights of a tensor on which its types are compared
RUNS = 8  # places in it that they are taken from

Importance = npt.NDArray[np.float32]


def importance_of(matrix: ImportanceMatrix | None, name: str, shape: Sequence[int]) -> Importance:
    """Return the importance of a tensor's columns (experts, 1, columns) or (1, columns), or ones.

    ``name`` is the GGUF's.
    """
    lead = (shape[0], 1) if len(shape) == 3 else (1,)
    entry = matrix.entries.get(name) if matrix else None
    if entry is None or entry.sums.size != np.prod(lead) * shape[-1]:
        return np.ones((*lead, shape[-1]), np.float32)
    return entry.values.reshape(*lead, shape[-1])


def rounded(weight: Array, type: GGMLType, importance: Importance, *, weighted: bool) -> Array:
    """Return what a weight becomes, as llama-quantize rounds it; ``weighted``: by importance."""
    if type.block_size == 1 and type is GGMLType.F32:
        return weight
    return dequantize(quantize(weight, type, importance if weighted else None), type, weight.shape)


def relative_losses(
    weights: Weights,
    name: str,
    types: Sequence[GGMLType],
    importance: Importance,
    *,
    weighted: bool,
) -> dict[GGMLType, float]:
    """Return the weighted squared error of each type, on rows from all over a tensor."""
    sums = dict.fromkeys(types, 0.0)
    for first, part in _sample(weights, name):
        own = importance[first : first + len(part)] if importance.ndim == 3 else importance
        for type in types:
            error = rounded(part, type, own, weighted=weighted) - part
            sums[type] += float((np.square(error, dtype=np.float64) * own).sum())
    return sums


def _sample(weights: Weights, name: str) -> list[tuple[int, Array]]:
    """Return runs of a tensor's first axis (rows, or experts and some rows of each)."""
    shape = weights.shapes[name]
    runs = min(RUNS, shape[0])
    per_run = max(1, SAMPLED // runs // shape[-1])
    starts = np.linspace(0, shape[0], runs, endpoint=False).astype(int)
    stops = [*starts[1:], shape[0]]
    if len(shape) == 3:
        step = max(1, shape[1] // per_run)
        return [
            (int(e), np.ascontiguousarray(weights.read(name, int(e), int(e) + 1)[:, ::step]))
            for e in starts
        ]
    return [
        (int(a), weights.read(name, int(a), int(min(b, a + per_run))))
        for a, b in zip(starts, stops, strict=True)
    ]
