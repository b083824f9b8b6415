"""Whether a merged file carries its adapter's delta: it must differ from the base by just that.

An adapter's delta D is often smaller than the noise e of quantization, so that no comparison
weight by weight tells whether it is there. But F, the weights of the file, are W + D + e, and e
knows nothing of D: over the millions of weights of a tensor the projection of F - W on D comes
to 1, or to 0 without the adapter, or to a half with half its alpha. Its standard error is
|e| / (|D| √n), known beforehand.

What e does have in common with the weights is that quantization shrinks them a little; D may lie
along them in part. The part of D along W + D is therefore left out of the projection.

Of tensors that the adapter leaves alone, the file may be no farther from the base's than
quantizing the base's puts them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lfm2gguf.blas import one_thread
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.reference import EMBEDDING, HEAD, AdaptedWeights, Weights
from lfm2gguf.verification.limits import TENSOR_LIMITS
from lfm2gguf.verification.measure.rounding import plainly_rounded
from lfm2gguf.verification.measure.tensors import paired_names, windows

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TensorDelta:
    """How much of the adapter's delta a tensor of the file carries: 1 is all of it.

    ``noise`` is what quantization may move ``share`` by; ``size`` is the delta's size relative
    to the weights'.
    """

    name: str  # in the file
    type: str
    share: float
    noise: float
    size: float


def tensor_deltas(
    file: GGUFFile, candidate: Weights, reference: AdaptedWeights
) -> list[TensorDelta]:
    """Measure every tensor that the adapter changes.

    Raises:
        OptionError: it changes none.

    """
    found = [
        (name, theirs, file.tensors[name].type.name)
        for name, theirs in paired_names(file, reference)
        if theirs in reference.changed
    ]
    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [
            pool.map(lambda rows, n=theirs: _products(candidate, reference, n, rows),
                     _shared_rows(reference, theirs))
            for _, theirs, _ in found
        ]  # fmt: skip
        deltas = [
            _delta(name, type, sum(part, np.zeros(5)), math.prod(reference.shapes[theirs]))
            for (name, theirs, type), part in zip(found, parts, strict=True)
        ]
    if not any(delta.size for delta in deltas):
        raise OptionError("the adapter changes nothing: its deltas are zero; was it trained?")
    return [delta for delta in deltas if delta.size]


def _shared_rows(reference: AdaptedWeights, name: str) -> Iterator[tuple[int, int]]:
    """Return windows of the rows that the base has too: a vocabulary may have grown."""
    base = reference.base.shapes[_of_base(reference, name)]
    return windows((min(reference.shapes[name][0], base[0]), *base[1:]))


def _of_base(reference: AdaptedWeights, name: str) -> str:
    return EMBEDDING if name == HEAD and HEAD not in reference.base.shapes else name


def _products(
    candidate: Weights, reference: AdaptedWeights, name: str, rows: tuple[int, int]
) -> Sums:
    """Return dot products of the file's difference f, the delta d and the merged weights m."""
    base = reference.base.read(_of_base(reference, name), *rows).reshape(-1)
    merged = reference.read(name, *rows).reshape(-1).astype(np.float64)
    f = candidate.read(name, *rows).reshape(-1) - base.astype(np.float64)
    d = merged - base
    return np.array([f @ d, f @ merged, d @ d, d @ merged, merged @ merged])


def _delta(name: str, type: str, sums: Sums, weights: int) -> TensorDelta:
    fd, fm, dd, dm, mm = map(float, sums)
    along = dm / mm if mm else 0.0
    power = dd - along * dm  # of the delta's part across the merged weights
    if power <= 1e-12 * mm:
        return TensorDelta(name, type, 1.0, 0.0, 0.0)
    noise = _noise_of(type) * math.sqrt(mm / weights / power)
    return TensorDelta(name, type, (fd - along * fm) / power, noise, math.sqrt(dd / mm))


def _noise_of(type: str) -> float:
    return TENSOR_LIMITS[type].noise if type in TENSOR_LIMITS else math.inf


def growth(file: GGUFFile, candidate: Weights, reference: AdaptedWeights) -> dict[str, float]:
    """Return each untouched tensor's error, in units of what quantizing the base would give."""
    found = [
        (name, theirs, file.tensors[name].type)
        for name, theirs in paired_names(file, reference)
        if theirs not in reference.changed
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [
            pool.map(lambda rows, n=theirs, t=type: _errors(candidate, reference, n, t, rows),
                     _shared_rows(reference, theirs))
            for _, theirs, type in found
        ]  # fmt: skip
        return {
            name: _ratio(*sum(part, np.zeros(2)))
            for (name, _, _), part in zip(found, parts, strict=True)
        }


def _errors(
    candidate: Weights,
    reference: AdaptedWeights,
    name: str,
    type: GGMLType,
    rows: tuple[int, int],
) -> Sums:
    """Return the sums of squares of the file's error and of quantization's."""
    base = reference.base.read(_of_base(reference, name), *rows)
    found = candidate.read(name, *rows).reshape(base.shape)
    own = plainly_rounded(base, type)
    return np.array([np.square(x - base, dtype=np.float64).sum() for x in (found, own)])


def _ratio(file: float, own: float) -> float:
    if not file:
        return 1.0
    return math.sqrt(file / own) if own else math.inf


def together(deltas: Sequence[TensorDelta]) -> tuple[float, float]:
    """Return the best estimate of the share from all tensors, and its noise."""
    floor = 1e-9  # of noise, so that exact types have a weight too
    weights = np.array([1 / max(d.noise, floor) ** 2 for d in deltas])
    shares = np.array([d.share for d in deltas])
    return float(weights @ shares / weights.sum()), float(1 / np.sqrt(weights.sum()))
