"""A checkpoint becomes GGUF files: find it, plan, draft, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Adapter, Checkpoint, LowRank, TensorInfo
from lfm2gguf.conversion.draft import Draft, draft, parse_types, target_paths
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.conversion.write import ProgressCallback, WrittenFile, write
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.gguf_file import parse_size
from lfm2gguf.lfm2 import Plan, PlannedTensor, Source, make_plan
from lfm2gguf.storage import GGML

Weights = NDArray[np.float32]
DEFAULT_TYPE = {False: "Q4_K_M", True: "F16"}  # of a text model, of a projector


@dataclass(frozen=True)
class Conversion:
    """What was written, the tensors that were left out and why, and what else was decided."""

    files: tuple[WrittenFile, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()


def convert(
    source: str | Path,
    target: str | Path | None = None,
    type: str | FileType | Sequence[str | FileType] | None = None,
    *,
    projector: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    split_max_size: str | int | None = None,
    progress: ProgressCallback | None = None,
) -> Conversion:
    """Convert an LFM2 checkpoint to one or several GGUF files in one reading.

    Args:
        source: a checkpoint folder, or a Hub id such as ``LiquidAI/LFM2-1.2B``.
        target: a file's name, or a folder for files of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"``, or several. By default Q4_K_M; for a projector F16.
        projector: write the projector (``mmproj-...gguf``) of a vision or audio model instead of
            its text model.
        jobs: processes that work; by default as many as there are cores.
        overwrite: replace files that exist.
        revision: branch, tag or commit of the Hub repository.
        pre: name of the pre-tokenizer, where it is not to be recognised by its structure.
        lora: an adapter's folder, or its Hub id, to be merged into the model.
        split_max_size: bytes, or such as "4G": several files of about that size.
        progress: called with a :class:`~lfm2gguf.conversion.Progress` after each part.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    plan, drafts = draft_conversion(
        source, target, type, projector=projector,
        revision=revision, pre=pre, lora=lora, split_max_size=split_max_size,
    )  # fmt: skip
    files = write(drafts, jobs=jobs, overwrite=overwrite, progress=progress)
    return Conversion(tuple(files), dict(plan.left_out), plan.notes)


def draft_conversion(
    source: str | Path,
    target: str | Path | None = None,
    type: str | FileType | Sequence[str | FileType] | None = None,
    *,
    projector: bool = False,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    split_max_size: str | int | None = None,
) -> tuple[Plan, list[Draft]]:
    """What :func:`convert` would write; no weight is read."""
    types = parse_types(DEFAULT_TYPE[projector] if type is None else type)
    checkpoint = Checkpoint.open(source, revision)
    adapter = Adapter.open(lora) if lora else None
    plan = make_plan(checkpoint, pre, projector=projector, adapter=adapter)
    sources = [_source(plan, planned) for planned in plan.tensors]
    targets = target_paths(plan.metadata, types, target)
    options = {
        "n_layers": plan.n_layers,
        "n_experts": plan.n_experts,
        "max_bytes": parse_size(split_max_size),
    }
    drafts = [
        draft(plan.metadata, sources, path, type, **options)
        for path, type in zip(targets, types, strict=True)
    ]
    return plan, drafts


def _source(plan: Plan, planned: PlannedTensor) -> SourceTensor:
    checkpoint = plan.checkpoint
    n_per_row = planned.shape[-1]
    parts = [_part(checkpoint, source, n_per_row) for source in planned.sources]
    for i, source in enumerate(planned.sources):
        if delta := plan.deltas.get(source.key):
            if lengths := plan.column_lengths.get(source.key):
                delta = delta.with_column_lengths(lengths, _whole(parts[i]))
            parts[i] = replace(parts[i], delta=delta)
    if planned.compute:
        infos = [checkpoint.tensors[source.name] for source in planned.sources]
        deltas = [plan.deltas.get(source.key) for source in planned.sources]
        compute = partial(_compute, planned.compute, infos, deltas)
        n_rows = math.prod(planned.shape[:-1])
        rows = replace(parts[0].source, dtype=GGML[GGMLType.F32], shape=(n_rows, n_per_row))
        parts = [Part(parts[0].origin, rows, 0, n_rows, compute=compute)]
    # What llama.cpp's converter keeps in F32: vectors, norms, gates, the convolution's kernel.
    return SourceTensor(planned.name, planned.shape, tuple(parts), GGMLType.F32)


def _whole(part: Part) -> Iterator[NDArray[np.float32]]:
    return (part.weights(raw, row) for row, raw in part.tiles(part.start, part.stop))


def _compute(
    function: Callable[..., Weights],
    infos: Sequence[TensorInfo],
    deltas: Sequence[LowRank | None],
) -> Weights:
    pairs = ((info.read(), delta) for info, delta in zip(infos, deltas, strict=True))
    return function(*(delta.merge(weights, 0) if delta else weights for weights, delta in pairs))


def _part(checkpoint: Checkpoint, source: Source, n_per_row: int) -> Part:
    info = checkpoint.tensors[source.name]
    stored = info.stored(math.prod(info.shape) // n_per_row, n_per_row)
    return Part(info.name, stored, source.start, source.start + source.n_rows(n_per_row))
