"""Writing drafted files: one reading of the weights for all of them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.conversion.draft import Draft
from lfm2gguf.conversion.importance import importance_of
from lfm2gguf.conversion.tasks import TASK_WEIGHTS, Output, Task, read_ahead, split
from lfm2gguf.conversion.workers import run_all, run_on
from lfm2gguf.errors import OptionError
from lfm2gguf.progress import Progress, ProgressCallback
from lfm2gguf.quants import CODECS, compiled_do_all, warm_up
from lfm2gguf.rendering import file_size
from lfm2gguf.storage import Stamp, check_unchanged

# Starting a worker process takes about as long as quantizing this many weights.
WEIGHTS_PER_WORKER = 8 * TASK_WEIGHTS


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written. ``seconds`` is its share of the whole run's wall time."""

    path: Path
    type: str
    nbytes: int
    n_weights: int
    bits_per_weight: float
    seconds: float
    tensor_types: dict[str, int]
    n_files: int = 1  # ``path`` is the first
    kernels: str = "numpy"  # or numba, or an executor's workers' own

    def __repr__(self) -> str:
        """Return what was written, short."""
        return f"WrittenFile({str(self.path)!r}: {self.type}, {file_size(self.nbytes)})"

    @property
    def weights_per_second(self) -> float:
        """Weights written in a second of its share of the wall time."""
        return self.n_weights / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {
            "path": str(self.path),
            "type": self.type,
            "bytes": self.nbytes,
            "weights": self.n_weights,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "seconds": round(self.seconds, 3),
            "weights_per_second": round(self.weights_per_second),
            "tensor_types": self.tensor_types,
            "files": self.n_files,
            "kernels": self.kernels,
        }


def write(
    drafts: Sequence[Draft],
    read: Sequence[Stamp] = (),
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> list[WrittenFile]:
    """Write all drafts, which must be of the same tensors. All files appear, or none.

    ``read`` are the files that they are made of, as they were when the drafts were made.

    Raises:
        OptionError: ``jobs`` is less than one, two files would have the same name, or one the
            name of what is read.
        OutputError: a target exists, cannot be written, or the disk is full.
        TensorError: a weight is NaN or infinite, or too large for a type; or a file of ``read``
            was written or removed since.

    """
    began = time.perf_counter()
    n_weights = drafts[0].n_weights
    processes = _jobs(jobs, n_weights)
    targets = [os.path.realpath(file.path) for draft in drafts for file in draft.files]
    if len(set(targets)) < len(targets):
        raise OptionError(f"{drafts[0].target}: several types cannot share one file; give a folder")
    sources = {os.path.realpath(part.path) for source in drafts[0].sources for part in source.parts}
    if clash := sources.intersection(targets):
        raise OptionError(f"{clash.pop()}: is what is being read; give another name to write to")
    seconds = [0.0] * len(drafts)
    with contextlib.ExitStack() as stack:
        paths = {
            file.path: stack.enter_context(file.layout.create(file.path, overwrite=overwrite))
            for draft in drafts
            for file in draft.files
        }
        compiled = executor is None and _load_compiled(drafts, progress)
        report = _Reporter(progress, drafts[0])
        if executor is not None:
            done = run_on(executor, _tasks(drafts, paths))
        else:
            workers = _jobs(jobs, n_weights, TASK_WEIGHTS) if compiled else processes
            done = run_all(read_ahead(_tasks(drafts, paths)), workers, threads=compiled)
        for task, spent in stack.enter_context(contextlib.closing(done)):
            seconds = [a + b for a, b in zip(seconds, spent, strict=True)]
            report.done(task)
        check_unchanged(read)
    share = (time.perf_counter() - began) / (sum(seconds) or 1)
    return [
        WrittenFile(
            draft.files[0].path,
            draft.type.name,
            draft.nbytes,
            n_weights,
            draft.bits_per_weight,
            spent * share,
            draft.type_counts,
            len(draft.files),
            "numba" if compiled else "numpy" if executor is None else "the workers'",
        )
        for draft, spent in zip(drafts, seconds, strict=True)
    ]


def _tasks(drafts: Sequence[Draft], paths: Mapping[Path, Path]) -> Iterator[Task]:
    """Yield every task; ``paths`` has the name of each file while it is being written."""
    places = [draft.places for draft in drafts]
    for i, source in enumerate(drafts[0].sources):
        outputs = [
            Output(paths[place[i][0].path], place[i][1], draft.tensors[i].type)
            for draft, place in zip(drafts, places, strict=True)
        ]
        matrix = drafts[0].recipe.imatrix
        importance = None if matrix is None else importance_of(matrix, source)
        yield from split(source, outputs, importance)


def _jobs(jobs: int | None, n_weights: int, per_worker: int | None = None) -> int:
    if jobs is not None and jobs < 1:
        raise OptionError(f"jobs (--jobs) is {jobs}; give at least 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(jobs or cores or 1, n_weights // (per_worker or WEIGHTS_PER_WORKER)))


def _load_compiled(drafts: Sequence[Draft], progress: ProgressCallback | None) -> bool:
    """Load the compiled kernels that the files need; return whether those do all the work."""
    types = {
        tensor.type for draft in drafts for tensor in draft.tensors if tensor.type.is_quantized
    }
    codecs = [CODECS[type] for type in sorted(types, key=lambda type: type.id)]
    if not codecs or not compiled_do_all(codecs, len(drafts) * drafts[0].n_weights):
        return False
    warm_up(codecs, progress, _dtypes(drafts[0]), decoding=False)
    return True


def _dtypes(draft: Draft) -> list[np.dtype[Any]]:
    """What the parts' numbers are when they are quantized."""
    parts = [part for source in draft.sources for part in source.parts]
    return sorted({part.dtype for part in parts}, key=str)


class _Reporter:
    """Turns finished tasks into progress."""

    def __init__(self, callback: ProgressCallback | None, draft: Draft) -> None:
        self.callback, self.draft = callback, draft
        self.weights, self.tensors = 0, 0
        self.left = {s.name: sum(part.n_rows for part in s.parts) for s in draft.sources}

    def done(self, task: Task) -> None:
        self.weights += task.n_weights
        self.left[task.name] -= task.stop - task.start
        self.tensors += self.left[task.name] == 0
        if self.callback:
            note = f"{self.tensors}/{len(self.draft.tensors)} tensors, {task.name}"
            total = self.draft.n_weights
            self.callback(Progress("writing", self.weights, total, "weights", note))
