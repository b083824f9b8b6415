"""An importance matrix from the checkpoint itself, in the reference's forward pass.

The statistic is llama-imatrix's: for each linear layer of a block the sum of squares of its
input, over all tokens of chunks that begin with BOS; for experts over the tokens that chose
them. Source: tools/imatrix/imatrix.cpp, ``collect_imatrix`` (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.material import DEFAULT_CHUNKS, calibration_material
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.imatrix import DEFAULT_CHUNK, Entry, ImportanceMatrix
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, Reference, gguf_names
from lfm2gguf.verification import open_reference

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


def collect_imatrix(
    source: str | Path,
    texts: Sequence[str | Path] = (),
    *,
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CHUNK,
    revision: str | None = None,
    lora: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> ImportanceMatrix:
    """Compute the importance matrix of a checkpoint, in the memory of one layer.

    Args:
        source: a checkpoint folder, a Hub id, or an F32, F16 or BF16 GGUF.
        texts: UTF-8 files, or names that ``verify`` knows; by default the bundled mixture.
        chat: conversations as JSON in any usual form, rendered by the model's own template.
        chunks: at most so many chunks of each text; None for all.
        ctx: tokens of a chunk.
        revision: branch, tag or commit of a Hub repository.
        lora: an adapter's folder or Hub id, as it will be merged.
        progress: called with a :class:`~lfm2gguf.Progress` after each layer.

    Raises:
        OptionError: a text cannot be read, or is shorter than one chunk.
        UnsupportedError: a retrieval model, whose layers see both sides of a token.
        Lfm2ggufError: what opening the source raises.

    """
    model = open_reference(source, revision, lora)
    if model.retrieval:
        raise UnsupportedError(
            f"{source}: is a retrieval model, for which llama-imatrix has no protocol; "
            "quantize it without an importance matrix"
        )
    material = calibration_material(model, texts, chat=chat, chunks=chunks, ctx=ctx)
    collector = Collector(model.forward)
    sequences = list(material.sequences)
    observed = Reference(model.weights, collector.observe)
    nothing = [np.arange(0)] * len(sequences)
    observed.states(sequences, nothing, counting(progress, "importance matrix", "layers"))
    tokens = sum(map(len, sequences))
    return ImportanceMatrix(collector.entries(), material.names, tokens // ctx, ctx)
