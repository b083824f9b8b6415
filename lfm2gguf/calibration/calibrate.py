"""A calibrated conversion: the plan of a plain one, with tensors that were rounded better.

The finished tensors wait in a folder until the file is written, so that a run that was killed
goes on where it stopped, and so that the writer need not know of calibration.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lfm2gguf.calibration.grids import Bytes
from lfm2gguf.calibration.judge import Judgement, judge
from lfm2gguf.calibration.material import (
    DEFAULT_CHUNKS,
    CalibrationMaterial,
    calibration_material,
)
from lfm2gguf.calibration.moments import CORRECTION, FEATURES_PER_TOKEN
from lfm2gguf.calibration.recipe import calibrate_layers
from lfm2gguf.calibration.rounding import ROUNDS
from lfm2gguf.conversion import Conversion, Draft, Part, Recipe, SourceTensor, plan
from lfm2gguf.errors import OptionError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Value, ValueType
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import gguf_names
from lfm2gguf.storage import GGML, StoredRows, write_whole
from lfm2gguf.verification import ReferenceModel, open_reference
from lfm2gguf.version import __version__

HELD_OUT = 8  # one sequence in so many judges the result, and is not calibrated on
KEY = "lfm2gguf.calibration."  # metadata of ours, which llama.cpp passes over


@dataclass(frozen=True)
class Calibrated:
    """A calibrated file, how it was made, and how it compares with the plain one.

    ``kept_plain`` are tensors whose plain rounding lost no more; ``few_tokens`` are experts
    that fewer tokens reached than they have columns.
    """

    conversion: Conversion
    judgement: Judgement
    tokens: int
    kept_plain: tuple[str, ...] = ()
    few_tokens: tuple[str, ...] = ()

    @property
    def better(self) -> bool:
        """Whether the file is nearer to the checkpoint on the held-out text."""
        return self.judgement.calibrated < self.judgement.plain


def calibrate(
    source: str | Path,
    target: str | Path | None = None,
    type: str = "Q4_K_M",
    *,
    texts: Sequence[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    workspace: str | Path | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Calibrated:
    """Convert a checkpoint to one type, with weights rounded for what each layer sees.

    The file has the types and the size of ``llama-quantize --imatrix``'s; every llama.cpp runs it.

    Args:
        source: a checkpoint folder, or a Hub id.
        target: a file's name, or a folder for a file of the default name (the default: here).
        type: a file type such as ``"Q4_K_M"``.
        texts: UTF-8 files to calibrate on; by default a bundled mixture.
        chat: conversations as JSON lines, rendered by the model's own template.
        chunks: at most so many chunks of each text; None for all.
        ctx: tokens of a chunk.
        revision: branch, tag or commit of a Hub repository.
        pre: name of the pre-tokenizer, as :func:`~lfm2gguf.convert` takes it.
        lora: an adapter's folder or Hub id, merged first.
        workspace: a folder for finished tensors, which a later run of the same takes up again; by
            default a temporary one.
        jobs: processes that write the file.
        overwrite: replace a file that exists.
        progress: called with a :class:`~lfm2gguf.Progress` after each layer.

    Raises:
        OptionError: a text cannot be read or is too short.
        UnsupportedError: a retrieval model.
        Lfm2ggufError: as :func:`~lfm2gguf.convert`.

    """
    planned = plan(source, target, Recipe(type), revision=revision, pre=pre, lora=lora)
    if len(planned.drafts) != 1:
        raise OptionError(f"type (--type): calibration makes one type at a time, not {type}")
    [draft] = planned.drafts
    model = open_reference(source, revision, lora)
    if model.retrieval:
        raise UnsupportedError(
            f"{source}: is a retrieval model; calibration follows the prediction of text. Convert "
            "it without (--calibrate)"
        )
    material = calibration_material(model, texts, chat=chat, chunks=chunks, ctx=ctx)
    used, held_out = material.split(HELD_OUT)
    if not used.sequences or not held_out.sequences:
        raise OptionError(
            f"texts (--text): {len(material.sequences)} chunks are too few; {HELD_OUT} or more are "
            "needed, since one in so many is kept to judge the result"
        )
    with _workspace(workspace) as folder:
        store = Store(folder / _run_key(model, draft, used))
        made = _calibrate(model, draft, used, store, progress)
        calibrated = replace(
            draft, sources=made.sources, metadata=draft.metadata | _metadata(used)
        )
        judgement = judge(model, draft, store, made.names, held_out, progress)
        written = replace(planned, drafts=(calibrated,)).write(
            jobs=jobs, overwrite=overwrite, progress=progress
        )
    return Calibrated(written, judgement, used.tokens, made.kept_plain, made.few_tokens)


class Store:
    """Finished tensors in a folder, each under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where a tensor of a GGUF lies, or will."""
        return self.folder / f"{name}.bin"

    def load(self, name: str) -> Bytes | None:
        """Return the bytes of a finished tensor."""
        path = self.path(name)
        return np.fromfile(path, np.uint8) if path.is_file() else None

    def save(self, name: str, data: Bytes) -> None:
        """Keep a finished tensor."""
        write_whole(self.path(name), np.ascontiguousarray(data).tobytes(), overwrite=True)
