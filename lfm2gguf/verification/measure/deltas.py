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

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.quants import dequantize, quantize
from lfm2gguf.reference import EMBEDDING, HEAD, AdaptedWeights, Weights
from lfm2gguf.verification.measure.tensors import paired_names, windows
from lfm2gguf.verification.verdict.gates import Gate

Sums = npt.NDArray[np.float64]

# Error of a tensor relative to its size, as weights of heavy tails have it (Student's t with 4
# degrees of freedom); normal ones have 0.7 to 0.9 of it.
NOISE = {
    "F32": 6e-8,
    "F16": 2.2e-4,
    "BF16": 1.7e-3,
    "Q8_0": 0.0075,
    "Q6_K": 0.023,
    "Q5_K": 0.044,
    "Q5_1": 0.046,
    "Q5_0": 0.058,
    "Q4_K": 0.086,
    "Q4_0": 0.12,
}
SIGMAS = 5.0  # of the projection's standard error
MAX_DEVIATION = 0.1  # of a projection from 1, beside the noise
TELLING = 0.3  # a tensor whose noise is larger than this does not testify by itself
MAX_GROWTH = 1.1  # of the error of a tensor that the adapter leaves alone


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
    """Measure every tensor that the adapter changes. Raises OptionError if it changes none."""
    found = [
        (name, theirs, file.tensors[name].type.name)
        for name, theirs in paired_names(file, reference)
        if theirs in reference.changed
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
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
    """Windows of the rows that the base has too: a vocabulary may have grown."""
    base = reference.base.shapes[_of_base(reference, name)]
    return windows((min(reference.shapes[name][0], base[0]), *base[1:]))


def _of_base(reference: AdaptedWeights, name: str) -> str:
    return EMBEDDING if name == HEAD and HEAD not in reference.base.shapes else name


def _products(
    candidate: Weights, reference: AdaptedWeights, name: str, rows: tuple[int, int]
) -> Sums:
    """Dot products of the file's difference f, the delta d and the merged weights m."""
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
    noise = NOISE.get(type, math.inf) * math.sqrt(mm / weights / power)
    return TensorDelta(name, type, (fd - along * fm) / power, noise, math.sqrt(dd / mm))


def growth(file: GGUFFile, candidate: Weights, reference: AdaptedWeights) -> dict[str, float]:
    """For each tensor that the adapter leaves alone its error, in units of quantization's own."""
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
    """Sums of squares of the file's error and of quantization's."""
    base = reference.base.read(_of_base(reference, name), *rows)
    found = candidate.read(name, *rows).reshape(base.shape)
    own = dequantize(quantize(base, type), type, base.shape)
    return np.array([np.square(x - base, dtype=np.float64).sum() for x in (found, own)])


def _ratio(file: float, own: float) -> float:
    if not file:
        return 1.0
    return math.sqrt(file / own) if own else math.inf


def delta_gates(deltas: Sequence[TensorDelta], grown: dict[str, float]) -> Iterator[Gate]:
    """The tensor that carries least of the delta, all of them together, and the others."""
    telling = [d for d in deltas if SIGMAS * d.noise <= TELLING]
    if telling:
        worst = max(telling, key=lambda d: (math.isnan(d.share), _beyond(d)))
        yield _gate("departure from the adapter's delta, worst tensor", worst.share, worst.noise,
                    f"{worst.name} carries {worst.share:.3f} of it; "
                    f"{len(telling)} of {len(deltas)} tensors can tell")  # fmt: skip
    share, noise = together(deltas)
    detail = f"{share:.4f} of it"
    if SIGMAS * noise > TELLING:
        detail += (
            ", which noise of quantization may hide: judge a finer type of the same model, such "
            "as Q8_0"
        )
    yield _gate(
        "departure from the adapter's delta, all tensors",
        share,
        min(noise, TELLING / SIGMAS),
        detail,
    )
    if grown:
        name = max(grown, key=lambda name: grown[name])
        yield Gate("other tensors are the base's", grown[name], MAX_GROWTH,
                   detail=f"{name}: error in units of that of quantizing the base's")  # fmt: skip


def _beyond(delta: TensorDelta) -> float:
    return abs(delta.share - 1) - SIGMAS * delta.noise


def _gate(name: str, share: float, noise: float, detail: str) -> Gate:
    away, tolerance = abs(share - 1), SIGMAS * noise
    return Gate(name, away, MAX_DEVIATION, tolerance=tolerance, percent=True, detail=detail)


def together(deltas: Sequence[TensorDelta]) -> tuple[float, float]:
    """The best estimate of the share from all tensors, and its noise."""
    floor = 1e-9  # of noise, so that exact types have a weight too
    weights = np.array([1 / max(d.noise, floor) ** 2 for d in deltas])
    shares = np.array([d.share for d in deltas])
    return float(weights @ shares / weights.sum()), float(1 / np.sqrt(weights.sum()))
