"""Tensor by tensor: whether each weight of the file lies near that of the checkpoint.

Averages over a text can miss a small fault: one damaged scale among millions of weights moves
no perplexity. Reading both sides finds it, costs a fraction of a forward pass, needs no text,
and names the tensor.

The error is measured in runs of 32 weights, the smallest block that any type scales by
itself: the root mean square of the difference over that of the checkpoint's weights. A sample of
rows is also rounded here, plainly: what a type of few bits loses is much, and differs from tensor
to tensor, but how much it is can be known.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.quants import CODECS, warm_up
from lfm2gguf.reference import DENSE, HEAD, Array, Weights, gguf_names
from lfm2gguf.verification.limits import TENSOR_LIMITS
from lfm2gguf.verification.measure.rounding import plainly_rounded

RUN = 32
SAMPLE = 1 << 12  # weights of a tensor, in whole rows, that are rounded here
LEAST = 0.25  # of a type's usual loss, which plain rounding of any weights is taken to have
WINDOW = 1 << 20  # weights that a thread compares at a time
LARGE = 1 << 28  # weights; for fewer, loading compiled decoders costs more than it saves
QUIET = 0.25  # a run is never held to less than this share of its tensor's mean square


@dataclass(frozen=True)
class TensorDifference:
    """How far a tensor of the file is from the checkpoint's, relative to its size.

    ``rms`` is over the whole tensor, ``worst`` over its worst run of 32 weights. ``excess`` is the
    error of a sample of rows in units of what plain rounding to the type does to them; 1 of types
    that are not quantized.
    """

    name: str  # in the file
    type: str
    rms: float
    worst: float
    excess: float = 1.0


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
        warm_up([CODECS[type] for type in types], progress, dtypes=(np.dtype(np.float32),))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [
            (name, pool.map(lambda rows, n=theirs, t=file.tensors[name].type:
                            _errors(candidate, reference, n, t, rows),
                            windows(candidate.shapes[theirs])))
            for name, theirs in names
        ]  # fmt: skip
        return [_difference(name, file.tensors[name].type, list(p)) for name, p in parts]


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


@dataclass(frozen=True)
class _Errors:
    """Mean squares of a window's runs, and sums of squares over its sampled rows.

    ``error`` is the file's, ``power`` the reference's; of the rows ``sampled`` has the file's,
    plain rounding's, and the reference's.
    """

    error: npt.NDArray[np.float32]
    power: npt.NDArray[np.float32]
    sampled: npt.NDArray[np.float64]


def _errors(
    candidate: Weights, reference: Weights, name: str, type: GGMLType, rows: tuple[int, int]
) -> _Errors:
    shape = candidate.shapes[name]
    expected = reference.read(name, *rows).reshape(-1, shape[-1])
    difference = candidate.read(name, *rows).reshape(-1, shape[-1]) - expected
    runs = _run_squares(difference.reshape(-1)), _run_squares(expected.reshape(-1))
    taken = _sample(shape, rows)
    here = expected[taken]
    if not type.is_quantized or not here.size or not np.isfinite(here).all():
        return _Errors(*runs, np.zeros(3))
    own = plainly_rounded(here, type) - here
    return _Errors(*runs, np.array([_square(x) for x in (difference[taken], own, here)]))


def _sample(shape: Sequence[int], rows: tuple[int, int]) -> slice:
    """Return which of a window's rows are sampled: evenly spaced over the whole tensor."""
    step = max(1, math.prod(shape) // SAMPLE)
    first = rows[0] * math.prod(shape[1:-1])  # row of the tensor as a matrix
    return slice(-first % step, None, step)


def _square(x: Array) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def _run_squares(x: Array) -> npt.NDArray[np.float32]:
    whole = len(x) // RUN * RUN
    runs = x[:whole].reshape(-1, RUN)
    squares = np.einsum("ij,ij->i", runs, runs) / np.float32(RUN)
    rest = x[whole:]
    return np.append(squares, rest @ rest / np.float32(len(rest))) if len(rest) else squares


def _difference(name: str, type: GGMLType, parts: Sequence[_Errors]) -> TensorDifference:
    error = np.concatenate([part.error for part in parts]).astype(np.float64)
    power = np.concatenate([part.power for part in parts]).astype(np.float64)
    typical = power.mean()
    if not typical:
        bad = math.inf if error.any() else 0.0
        return TensorDifference(name, type.name, bad, bad)
    worst = math.sqrt((error / np.maximum(power, QUIET * typical)).max())
    rms = math.sqrt(error.mean() / typical)
    return TensorDifference(name, type.name, rms, worst, _excess(type, parts))


def _excess(type: GGMLType, parts: Sequence[_Errors]) -> float:
    found, own, weights = sum((part.sampled for part in parts), np.zeros(3))
    # Weights that lie on the type's grid, as those trained for it do, lose nearly nothing.
    least = (LEAST * TENSOR_LIMITS[type.name].noise) ** 2 * weights
    return math.sqrt(found / max(own, least)) if weights else 1.0
