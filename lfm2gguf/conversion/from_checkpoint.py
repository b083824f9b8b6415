"""A checkpoint becomes GGUF files: find it, plan, draft, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Adapter, Checkpoint, LowRank, TensorInfo, tokenizer_folder
from lfm2gguf.conversion.draft import Model
from lfm2gguf.conversion.planned import Conversion, ConversionPlan
from lfm2gguf.conversion.recipe import Recipe, Types
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Value, ValueType
from lfm2gguf.lfm2 import Plan, PlannedTensor, Source, make_plan
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.storage import GGML, stamps

Weights = NDArray[np.float32]
DEFAULT_TYPE = {False: "Q4_K_M", True: "F16"}  # of a text model, of a projector


def plan(
    source: str | Path,
    target: str | Path | None = None,
    type: Types | Recipe | None = None,
    *,
    projector: bool = False,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    target_model: str | Path | None = None,
    name: str | None = None,
) -> ConversionPlan:
    """Decide what an LFM2 checkpoint becomes; no weight is read and nothing written.

    Args:
        source: a checkpoint folder, or a Hub id such as ``LiquidAI/LFM2-1.2B``.
        target: a file's name, or a folder for files of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"``, or several; by default Q4_K_M, for a projector F16.
            A :class:`~lfm2gguf.conversion.Recipe` also says how the files are made.
        projector: write the projector (``mmproj-...gguf``) of a vision or audio model instead of
            its text model.
        revision: branch, tag or commit of the Hub repository.
        pre: name of the pre-tokenizer, where its structure is not to decide.
        lora: an adapter's folder, or its Hub id, to be merged into the model.
        target_model: of a draft (DSpark), the model that it drafts for: a folder or a Hub id, of
            which only the tokenizer is read.
        name: what ``general.name`` says, in place of what the checkpoint does.

    Raises:
        CheckpointError: the checkpoint or the adapter is incomplete or damaged.
        UnsupportedError: it is sound, but not something that can be converted.
        OptionError: a type is unknown, or one file is named for several types.
        HubError: the repository could not be fetched.

    """
    recipe = Recipe.of(type)
    recipe.file_types(DEFAULT_TYPE[projector])  # refused before anything is fetched
    checkpoint = Checkpoint.open(source, revision)
    adapter = Adapter.open(lora) if lora else None
    tokenizer = tokenizer_folder(target_model) if target_model else None
    made = make_plan(checkpoint, pre, projector=projector, adapter=adapter, tokenizer=tokenizer)
    sources = [_source(made, planned) for planned in made.tensors]
    named = {"general.name": Value(ValueType.STRING, name)} if name else {}
    model = Model(
        {**made.metadata, **named},
        sources,
        made.n_layers,
        made.n_experts,
        made.left_out,
        tuple(made.notes),
        stamps([*checkpoint.files, *(adapter.files if adapter else ())]),
    )
    return ConversionPlan.of(model, target, recipe, DEFAULT_TYPE[projector])


@numbers_checked
def convert(
    source: str | Path,
    target: str | Path | None = None,
    type: Types | Recipe | None = None,
    *,
    projector: bool = False,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    target_model: str | Path | None = None,
    name: str | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Conversion:
    """Convert an LFM2 checkpoint to one or several GGUF files in one reading.

    It is :func:`plan` and then :meth:`~lfm2gguf.conversion.ConversionPlan.write`, which explain
    the arguments.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    planned = plan(
        source, target, type,
        projector=projector, revision=revision, pre=pre, lora=lora, target_model=target_model,
        name=name,
    )  # fmt: skip
    return planned.write(jobs=jobs, overwrite=overwrite, progress=progress)


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
        rows = replace(
            parts[0].source, dtype=GGML[GGMLType.F32], shape=(n_rows, n_per_row), scales=None
        )
        parts = [Part(parts[0].origin, rows, 0, n_rows, compute=compute)]
    return SourceTensor(planned.name, planned.shape, tuple(parts), planned.kept)


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
