"""The table that ``llama-imatrix --show-statistics`` prints.

Source: tools/imatrix/imatrix.cpp, ``compute_statistics``, ``compute_cossim`` and
``show_statistics`` (llama.cpp 0c1e57098). Sums are float64 here and float32 there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lfm2gguf.imatrix.matrix import Entry, ImportanceMatrix

ACTIVE = 1e-5  # a mean square up to this counts as inactive
BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class TensorStatistics:
    """Of one weight's mean squares; ``similarity`` is to the same weight one block before.

    ``active`` and ``outliers`` (beyond one standard deviation) are shares, ``entropy`` is in bits.
    """

    name: str
    block: int | None
    total: float
    minimum: float
    maximum: float
    mean: float
    deviation: float
    active: float
    elements: int
    entropy: float
    outliers: float
    similarity: float

    @property
    def kind(self) -> str:
        """The part of the name before ``weight``, such as ``ffn_down``."""
        return _kind(self.name)

    @property
    def relative_entropy(self) -> float:
        """The entropy as a share of the largest that so many elements can have."""
        return self.entropy / np.log2(self.elements) if self.elements > 1 else 0.0


@dataclass(frozen=True)
class LayerStatistics:
    """Means of one block's tensors, weighted by their elements."""

    block: int
    total: float
    outliers: float
    similarity: float


def statistics(matrix: ImportanceMatrix) -> list[TensorStatistics]:
    """Compute a row for each weight that tokens reached: by kind, the largest total first."""
    rows = [
        _row(matrix, name, entry) for name, entry in matrix.entries.items() if entry.counts.any()
    ]
    return sorted(rows, key=lambda row: (_kind(row.name), -row.total))


def by_layer(rows: list[TensorStatistics]) -> list[LayerStatistics]:
    """Compute a row for each block."""
    blocks = sorted({row.block for row in rows if row.block is not None})
    return [_layer(block, [row for row in rows if row.block == block]) for block in blocks]


def _row(matrix: ImportanceMatrix, name: str, entry: Entry) -> TensorStatistics:
    seen = entry.counts > 0
    means = (entry.sums[seen] / entry.counts[seen, None]).astype(np.float64).ravel()
    total, deviation = float(means.sum()), float(means.std())
    shares = means[means > 0] / total if total else means[:0]
    scores = (means - means.mean()) / deviation if deviation else np.zeros_like(means)
    match = BLOCK.search(name)
    return TensorStatistics(
        name,
        int(match[1]) if match else None,
        total,
        float(means.min()),
        float(means.max()),
        float(means.mean()),
        deviation,
        float((means > ACTIVE).mean()),
        means.size,
        float(-(shares * np.log2(shares)).sum()),
        float((scores > 1).mean()),
        _similarity(matrix, name, entry),
    )


def _similarity(matrix: ImportanceMatrix, name: str, entry: Entry) -> float:
    """Return the cosine of the sums with those of the block before; 0 where there is none."""
    match = BLOCK.search(name)
    if match is None:
        return 0.0
    before = f"{name[: match.start(1)]}{int(match[1]) - 1}{name[match.end(1) :]}"
    other = matrix.entries.get(before)
    if other is None or other.sums.size != entry.sums.size:
        return 0.0
    a, b = (one.sums.astype(np.float64).ravel() for one in (entry, other))
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def _kind(name: str) -> str:
    """Return the part of a name before ``weight``, such as ``ffn_down``."""
    parts = name.split(".")
    return parts[parts.index("weight") - 1] if "weight" in parts[1:] else name


def _layer(block: int, rows: list[TensorStatistics]) -> LayerStatistics:
    elements = sum(row.elements for row in rows)
    total, outliers, similarity = (
        sum(row.elements * getattr(row, field) for row in rows) / elements
        for field in ("total", "outliers", "similarity")
    )
    return LayerStatistics(block, total, outliers, similarity)
