"""Writing drafted files: one reading of the weights for all of them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfm2gguf.conversion.draft import Draft
from lfm2gguf.conversion.tasks import TASK_WEIGHTS, Output, Task, split
from lfm2gguf.conversion.workers import run_all
from lfm2gguf.errors import OptionError
from lfm2gguf.progress import Progress, ProgressCallback

# Starting a worker takes about as long as quantizing this many weights.
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

    @property
    def weights_per_second(self) -> float:
        """Weights written in a second of its share of the wall time."""
        return self.n_weights / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The values as JSON knows them."""
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
        }


def write(
    drafts: Sequence[Draft],
    *,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> list[WrittenFile]:
    """Write all drafts, which must be of the same tensors. All files appear, or none.

    Raises:
        OptionError: ``jobs`` is less than one, two files would have the same name, or one the
            name of what is read.
        OutputError: a target exists, cannot be written, or the disk is full.
        TensorError: a weight is NaN or infinite, or too large for a type.

    """
    began = time.perf_counter()
    n_weights = drafts[0].n_weights
    jobs = _jobs(jobs, n_weights)
    targets = [file.path.resolve() for draft in drafts for file in draft.files]
    if len(set(targets)) < len(targets):
        raise OptionError(f"{drafts[0].target}: several types cannot share one file; give a folder")
    read = {part.path.resolve() for source in drafts[0].sources for part in source.parts}
    if clash := read.intersection(targets):
        raise OptionError(f"{clash.pop()}: is what is being read; give another name to write to")
    seconds = [0.0] * len(drafts)
    with contextlib.ExitStack() as stack:
        paths = {
            file.path: stack.enter_context(file.layout.create(file.path, overwrite=overwrite))
            for draft in drafts
            for file in draft.files
        }
        report = _Reporter(progress, drafts[0])
        for task, spent in run_all(_tasks(drafts, paths), jobs):
            seconds = [a + b for a, b in zip(seconds, spent, strict=True)]
            report.done(task)
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
        )
        for draft, spent in zip(drafts, seconds, strict=True)
    ]


def _tasks(drafts: Sequence[Draft], paths: Mapping[Path, Path]) -> Iterator[Task]:
    """Every task; ``paths`` has the name of each file while it is being written."""
    places = [draft.places for draft in drafts]
    for i, source in enumerate(drafts[0].sources):
        outputs = [
            Output(paths[place[i][0].path], place[i][1], draft.tensors[i].type)
            for draft, place in zip(drafts, places, strict=True)
        ]
        yield from split(source, outputs)


def _jobs(jobs: int | None, n_weights: int) -> int:
    if jobs is not None and jobs < 1:
        raise OptionError(f"jobs is {jobs}; at least one is needed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(jobs or cores or 1, n_weights // WEIGHTS_PER_WORKER))


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
