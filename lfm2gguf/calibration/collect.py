"""An importance matrix from the checkpoint itself, in the reference's forward pass.

The statistic is llama-imatrix's: for each linear layer of a block the sum of squares of its
input, over all tokens of chunks that begin with BOS; for experts over the tokens that chose
them. Source: tools/imatrix/imatrix.cpp, ``collect_imatrix`` (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from lfm2gguf.imatrix import Entry
from lfm2gguf.reference import Array, Reference, gguf_names

EXPERT = re.compile(r"(?P<experts>.+\.experts)\.(?P<i>\d+)\.(?P<matrix>w[123]\.weight)")
BLOCK = "blk."  # llama-imatrix leaves out the head, unless asked for it


class Collector:
    """Sums of squares, float64, by the name of a weight in a GGUF."""

    def __init__(self, reference: Reference) -> None:
        weights = reference.weights
        self._names = gguf_names(len(weights.config.layers))
        self._experts = {
            name: shape[0] for name, shape in weights.shapes.items() if ".experts." in name
        }
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, npt.NDArray[np.int64]] = {}

    def observe(self, name: str, x: Array) -> None:
        """Add the input ``x`` (tokens, columns) of the linear layer ``name``."""
        index, matrices = 0, 1
        if match := EXPERT.fullmatch(name):
            name, index = f"{match['experts']}.{match['matrix']}", int(match["i"])
            matrices = self._experts[name]
        ours = self._names[name]
        if not ours.startswith(BLOCK):
            return
        sums = self._sums.setdefault(ours, np.zeros((matrices, x.shape[1])))
        counts = self._counts.setdefault(ours, np.zeros(matrices, np.int64))
        sums[index] += np.einsum("ti,ti->i", x, x, dtype=np.float64)
        counts[index] += len(x)

    def entries(self) -> dict[str, Entry]:
        """Return what was collected."""
        return {
            name: Entry(sums.astype(np.float32), self._counts[name])
            for name, sums in self._sums.items()
        }
