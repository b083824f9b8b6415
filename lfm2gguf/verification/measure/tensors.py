"""Tensor by tensor: whether each weight of the file lies near that of the checkpoint.

Averages over a text can miss a small fault: one damaged scale among millions of weights moves
no perplexity. Reading both sides finds it, costs a fraction of a forward pass, needs no text,
and names the tensor.

The error is measured in runs of 32 weights, the smallest block that any type scales by
itself: the root mean square of the difference over that of the checkpoint's weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.quants import CODECS, warm_up
from lfm2gguf.reference import DENSE, HEAD, Array, Weights, gguf_names

RUN = 32
WINDOW = 1 << 20  # weights that a thread compares at a time
LARGE = 1 << 28  # weights; for fewer, loading compiled decoders costs more than it saves
QUIET = 0.25  # a run is never held to less than this share of its tensor's mean square


@dataclass(frozen=True)
class TensorDifference:
    """How far a tensor of the file is from the checkpoint's, relative to its size.

    ``rms`` is over the whole tensor, ``worst`` over its worst run of 32 weights.
    """

    name: str  # in the file
    type: str
    rms: float
    worst: float


def tensor_differences(
    file: GGUFFile,
    candidate: Weights,
    reference: Weights,
    progress: ProgressCallback | None = None,
) -> list[TensorDifference]:
    """Compare every tensor of a type that can be dequantized here, in the file's order."""
    names = paired_names(file, reference)
    if sum(math.prod(file.tensors[name].shape) for name, _ in names) >= LARGE:
        types = {file.tensors[name].type for name, _ in names}
        warm_up([CODECS[type] for type in types], progress, dtypes=())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [
            (name, pool.map(lambda rows, n=theirs: _errors(candidate, reference, n, rows),
                            windows(candidate.shapes[theirs])))
            for name, theirs in names
        ]  # fmt: skip
        return [_difference(name, file.tensors[name].type.name, list(p)) for name, p in parts]


def paired_names(file: GGUFFile, reference: Weights) -> list[tuple[str, str]]:
    """Return the tensors that can be dequantized here, and what the reference calls them.

    In the file's order, those only that the reference has.
    """
    ours = {theirs: name for name, theirs in gguf_names(len(reference.config.layers)).items()}
    ours["output_norm.weight"] = "model.embedding_norm.weight"
    return [
        (name, ours[name])
        for name, info in file.tensors.items()
        if ours.get(name) in reference.shapes and info.type in CODECS
    ]


def unmatched(file: GGUFFile, candidate: Weights, reference: Weights) -> list[str]:
    """Describe tensors that only one side has, or that differ in their number of weights."""
    known = gguf_names(len(reference.config.layers)) | {"": "output_norm.weight"}
    problems = [f"{name} is not a tensor of LFM2" for name in file.tensors
                if name not in known.values() and not name.startswith("rope_freqs")]  # fmt: skip
    for name, shape in reference.shapes.items():
        if name not in candidate.shapes:
            if name == DENSE:  # then there still are vectors, and gates for them
                continue
            if name != HEAD or not reference.config.tied:
                problems.append(f"{known.get(name, name)} is missing from the file")
        elif math.prod(candidate.shapes[name]) != math.prod(shape):
            problems.append(f"{known[name]} is {candidate.shapes[name]}, not {shape}")
    return problems


def windows(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return ranges of rows of a tensor, each of about :data:`WINDOW` weights."""
    rows = max(1, WINDOW // max(1, math.prod(shape[1:])))
    return ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def _errors(
    candidate: Weights, reference: Weights, name: str, rows: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean squares of the difference and of the reference, one for each run."""
    expected = reference.read(name, *rows).reshape(-1)
    difference = candidate.read(name, *rows).reshape(-1) - expected
    return _run_squares(difference), _run_squares(expected)


def _run_squares(x: Array) -> npt.NDArray[np.float32]:
    whole = len(x) // RUN * RUN
    runs = x[:whole].reshape(-1, RUN)
    squares = np.einsum("ij,ij->i", runs, runs) / np.float32(RUN)
    rest = x[whole:]
    return np.append(squares, rest @ rest / np.float32(len(rest))) if len(rest) else squares


def _difference(
    name: str, type: str, parts: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
) -> TensorDifference:
    error = np.concatenate([part[0] for part in parts]).astype(np.float64)
    power = np.concatenate([part[1] for part in parts]).astype(np.float64)
    typical = power.mean()
    if not typical:
        same = not error.any()
        return TensorDifference(name, type, 0.0 if same else math.inf, 0.0 if same else math.inf)
    worst = (error / np.maximum(power, QUIET * typical)).max()
    return TensorDifference(name, type, math.sqrt(error.mean() / typical), math.sqrt(worst))
