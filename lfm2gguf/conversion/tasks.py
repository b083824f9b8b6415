"""One task: some rows of one tensor, read once, stored in every type asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.conversion.importance import TaskImportance
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.errors import QuantizationError, TensorError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import find_nonfinite, quantize, validate
from lfm2gguf.storage import output_errors, target_of

TASK_WEIGHTS = 1 << 21  # what a worker is given at a time
AHEAD = 8  # tasks whose rows are on their way from the disk: 32 MB of BF16


@dataclass(frozen=True)
class Output:
    """Where the rows go: bytes from the start of a file, and how they are stored there."""

    path: Path
    offset: int
    type: GGMLType


@dataclass(frozen=True)
class Task:
    """Some rows of one part of the tensor ``name``, counted as the part counts them.

    Row 0 (which may not be the part's) would be at the offset that each of ``outputs`` says.
    """

    name: str
    part: Part
    start: int
    stop: int
    outputs: tuple[Output, ...]
    importance: TaskImportance | None = None

    @property
    def n_weights(self) -> int:
        """Weights in these rows."""
        return (self.stop - self.start) * self.part.n_per_row


class Files:
    """Files opened for filling in, each once."""

    def __init__(self) -> None:
        self._open: dict[Path, BinaryIO] = {}

    def write(self, path: Path, offset: int, data: NDArray[np.uint8]) -> None:
        """Put bytes at a place in a file that is there already."""
        with output_errors(target_of(path)):
            if path not in self._open:
                self._open[path] = path.open("r+b", buffering=0)
            file = self._open[path]
            file.seek(offset)
            view = np.ascontiguousarray(data).reshape(-1).data
            while view:
                view = view[file.write(view) :]

    def close(self) -> None:
        """Close all of them."""
        for file in self._open.values():
            file.close()
        self._open.clear()


def run(task: Task, files: Files, stopped: Callable[[], bool] = bool) -> list[float]:
    """Run a task, or its part until ``stopped``; return the seconds spent on each output.

    Raises:
        TensorError: a weight is NaN or infinite, or too large for a type.
        OutputError: a file cannot be written.

    """
    seconds = [0.0] * len(task.outputs)
    for row, raw in task.part.tiles(task.start, task.stop):
        if stopped():
            break
        stored = {task.part.type: raw} if task.part.type and not task.part.delta else {}
        weights: NDArray[Any] | None = None
        for i, output in enumerate(task.outputs):
            began = time.perf_counter()
            if weights is None:
                weights = task.part.numbers(raw, row)
                _refuse_nonfinite(task, row, raw, weights)
            if output.type not in stored:
                stored[output.type] = _store(task, row, weights, output.type)
            place = output.offset + row * output.type.row_bytes(task.part.n_per_row)
            files.write(output.path, place, stored[output.type])
            seconds[i] += time.perf_counter() - began
    return seconds


def _store(task: Task, row: int, weights: NDArray[Any], type: GGMLType) -> NDArray[np.uint8]:
    whole = task.importance
    importance = None if whole is None else whole.of_rows(row, len(weights))
    try:
        data = quantize(weights, type, importance)
        validate(data, type)
    except QuantizationError as error:
        raise TensorError(
            f"{task.part.place}, from row {row} on, has weights too large for {type.name}: {error}"
        ) from error
    return data


def _refuse_nonfinite(task: Task, row: int, raw: NDArray[np.uint8], numbers: NDArray[Any]) -> None:
    if (at := find_nonfinite(numbers)) is None:
        return
    weights = task.part.weights(raw, row)
    found, what = f"{weights[at]} at row {row + at[0]}, column {at[1]}", "checkpoint"
    where = f"{task.part.place} holds {found}"
    plain = replace(task.part, delta=None)
    if task.part.delta and find_nonfinite(plain.weights(raw, row)) is None:
        file, what = task.part.delta.left.tensor.file, "adapter"
        where = f"{file}: its delta of {task.part.origin!r} makes {found}"
    raise TensorError(f"{where}; the {what} is broken (a training that diverged?)")


def split(
    source: SourceTensor, outputs: Sequence[Output], importance: TaskImportance | None = None
) -> Iterator[Task]:
    """Cut a tensor into tasks of about :data:`TASK_WEIGHTS` weights, none over two parts.

    ``importance`` counts the rows of the tensor.
    """
    row = 0
    for part in source.parts:
        own = tuple(_moved(output, row - part.start, part.n_per_row) for output in outputs)
        step = max(1, TASK_WEIGHTS // part.n_per_row)
        for start in range(part.start, part.stop, step):
            stop = min(start + step, part.stop)
            weighed = importance and importance.moved(row - part.start)
            yield Task(source.name, part, start, stop, own, weighed)
        row += part.n_rows


def read_ahead(tasks: Iterable[Task]) -> Iterator[Task]:
    """Give the tasks, while the disk reads what the next ones need: it and the cores are busy."""
    waiting = deque[Task]()
    for task in tasks:
        task.part.expect(task.start, task.stop)
        waiting.append(task)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def _moved(output: Output, rows: int, n_per_row: int) -> Output:
    return replace(output, offset=output.offset + rows * output.type.row_bytes(n_per_row))
