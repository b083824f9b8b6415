"""An importance matrix from the checkpoint itself, in the reference's forward pass.

The statistic is llama-imatrix's: for each linear layer of a block the sum of squares of its
input, over all tokens of chunks that begin with BOS; for experts over the tokens that chose
them. Source: tools/imatrix/imatrix.cpp, ``collect_imatrix`` (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.material import DEFAULT_CHUNKS, CalibrationMaterial, calibration_material
from lfm2gguf.checkpoint import Adapter
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.executors import spread
from lfm2gguf.imatrix import DEFAULT_CHUNK, Entry, ImportanceMatrix
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, Ids, Reference, gguf_names, groups_of
from lfm2gguf.verification import ReferenceModel, open_reference

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

    def add(self, other: Collector) -> None:
        """Add what another collector of the same model has observed."""
        for name, sums in other._sums.items():
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums
            counts = other._counts[name]
            self._counts[name] = self._counts[name] + counts if name in self._counts else counts

    def entries(self) -> dict[str, Entry]:
        """Return what was collected."""
        return {
            name: Entry(sums.astype(np.float32), self._counts[name])
            for name, sums in self._sums.items()
        }


@numbers_checked
def collect_imatrix(
    source: str | Path,
    texts: str | Path | Iterable[str | Path] = (),
    *,
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = DEFAULT_CHUNK,
    revision: str | None = None,
    lora: str | Path | None = None,
    executor: Executor | None = None,
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
        executor: what takes groups of about 16,000 tokens through the model in place of this
            process, such as a Dask cluster's ``Client.get_executor()``: its workers see the same
            files. The matrix is the same.
        progress: called with a :class:`~lfm2gguf.Progress` after each layer; of an executor after
            each group.

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
    return matrix_of(model, material, ctx, lora, executor, progress)


def matrix_of(
    model: ReferenceModel,
    material: CalibrationMaterial,
    ctx: int = DEFAULT_CHUNK,
    lora: str | Path | None = None,
    executor: Executor | None = None,
    progress: ProgressCallback | None = None,
) -> ImportanceMatrix:
    """Compute the importance matrix of an open model on what has been read."""
    sequences = list(material.sequences)
    groups = [sequences[group] for group in groups_of(sequences)]
    collector = Collector(model.forward)
    for part in _observed(model, groups, lora, executor, progress):
        collector.add(part)  # in the order of the groups: sums depend on it
    tokens = sum(map(len, sequences))
    return ImportanceMatrix(collector.entries(), material.names, tokens // ctx, ctx)


@dataclass(frozen=True)
class _Group:
    """Sequences that go through the layers together, and the model's folder or file."""

    number: int
    path: Path
    lora: Path | None
    sequences: tuple[Ids, ...]


def _observed(
    model: ReferenceModel,
    groups: Sequence[Sequence[Ids]],
    lora: str | Path | None,
    executor: Executor | None,
    progress: ProgressCallback | None,
) -> Iterator[Collector]:
    """Observe each group by itself, here or on an executor's workers; give them in order."""
    if executor is None:
        count = counting(progress, "importance matrix", "layers")
        layers = len(model.weights.config.layers)
        for g, group in enumerate(groups):

            def step(done: int, _: int, g: int = g) -> None:
                if count:
                    count(g * layers + done, len(groups) * layers)

            yield _observe(model.forward, group, step)
        return
    path = Adapter.open(lora).path if lora else None
    pieces = [_Group(g, model.path, path, tuple(group)) for g, group in enumerate(groups)]
    count = counting(progress, "importance matrix", "groups")
    waiting: dict[int, Collector] = {}
    next_one = 0
    for done, (piece, part) in enumerate(spread(executor, observe_group, pieces, "imatrix"), 1):
        waiting[piece.number] = part
        if count:
            count(done, len(pieces))
        while next_one in waiting:
            yield waiting.pop(next_one)
            next_one += 1


def observe_group(group: _Group) -> Collector:
    """Observe a group on a worker, which opens the model itself."""
    model = open_reference(group.path, None, group.lora)
    try:
        return _observe(model.forward, group.sequences)
    finally:
        model.close()


def _observe(
    forward: Reference, sequences: Sequence[Ids], step: Callable[[int, int], None] | None = None
) -> Collector:
    collector = Collector(forward)
    nothing = [np.arange(0)] * len(sequences)
    Reference(forward.weights, collector.observe).states(sequences, nothing, step)
    return collector
