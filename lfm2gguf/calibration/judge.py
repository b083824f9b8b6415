"""Whether a calibrated model is nearer to the checkpoint than a plain one, on text kept aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.material import CalibrationMaterial
from lfm2gguf.conversion import Draft
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.quants import CODECS, dequantize, quantize
from lfm2gguf.reference import Array, Reference, RetrievalReference, Weights
from lfm2gguf.verification import ReferenceModel, score

ROWS = 512  # positions whose logits are held together


class Measure(Enum):
    """How far a model is from its checkpoint: its name in data, and in words."""

    KLD = ("kld", "KL divergence")  # of predictions, in nats
    COSINE = ("cosine_distance", "cosine distance")  # of a retrieval model's vectors

    def __init__(self, key: str, words: str) -> None:
        self.key, self.words = key, words


@dataclass(frozen=True)
class Judgement:
    """Mean distance from the checkpoint over ``tokens`` held-out positions.

    ``plain`` is of the same types rounded as llama-quantize does without an importance matrix.
    Of a retrieval model that pools, a position is a text.
    """

    calibrated: float
    plain: float
    tokens: int
    measure: Measure = Measure.KLD

    @property
    def ratio(self) -> float:
        """What the calibrated model loses of what the plain one does."""
        return self.calibrated / self.plain if self.plain else 1.0


class Tensors(Protocol):
    """Where finished tensors are."""

    def load(self, name: str, expert: int | None = None) -> npt.NDArray[Any] | None:
        """Return the bytes of a tensor by its name in the GGUF."""
        ...


def judge(
    model: ReferenceModel,
    draft: Draft,
    store: Tensors,
    names: Mapping[str, str],
    material: CalibrationMaterial,
    progress: ProgressCallback | None = None,
) -> Judgement:
    """Compare both roundings with the checkpoint, all three by the reference's forward pass.

    ``names`` maps the reference's names of the tensors to those of the GGUF.
    """
    types = {tensor.name: tensor.type for tensor in draft.tensors}
    quantized = {ours: types[theirs] for ours, theirs in names.items()}

    def plain(name: str, start: int, stop: int) -> Array:
        weight = model.weights.read(name, start, stop)
        type = quantized[name]
        needed = np.ones(weight.shape[-1], np.float32) if CODECS[type].needs_importance else None
        return dequantize(quantize(weight, type, needed), type, weight.shape)

    scored = _Scored(model, material, progress)
    return Judgement(
        scored.divergence(
            model.weights.replaced(quantized, finished_rows(model, draft, store, names))
        ),
        scored.divergence(model.weights.replaced(quantized, plain)),
        scored.tokens,
        Measure.KLD if model.retrieval is None else Measure.COSINE,
    )


def finished_rows(
    model: ReferenceModel, draft: Draft, store: Tensors, names: Mapping[str, str]
) -> Callable[[str, int, int], Array]:
    """Return what reads rows, of experts matrices, of finished tensors."""
    types = {tensor.name: tensor.type for tensor in draft.tensors}

    def read(name: str, start: int, stop: int) -> Array:
        shape = model.weights.shapes[name]
        if len(shape) == 3:
            return np.stack([rows(name, e, 0, shape[1]) for e in range(start, stop)])
        return rows(name, None, start, stop)

    def rows(name: str, expert: int | None, start: int, stop: int) -> Array:
        data = store.load(names[name], expert)
        assert data is not None, name
        height, width = model.weights.shapes[name][-2:]
        part = np.ascontiguousarray(data.reshape(height, -1)[start:stop])
        return dequantize(part, types[names[name]], (len(part), width))

    return read


class _Scored:
    """The checkpoint's states on the held-out text, and candidates beside them."""

    def __init__(
        self,
        model: ReferenceModel,
        material: CalibrationMaterial,
        progress: ProgressCallback | None,
    ) -> None:
        self.forward, self.progress = model.forward, progress
        self.sequences = list(material.sequences)
        self.lengths = [len(ids) for ids in self.sequences]
        self.retrieval = self.forward if isinstance(self.forward, RetrievalReference) else None
        halves = [(0, n) if self.retrieval else (n // 2, n - 1) for n in self.lengths]
        self.positions = [np.arange(start, stop) for start, stop in halves]
        self.states = self._states(self.forward, "checkpoint")

    @property
    def tokens(self) -> int:
        """Positions that are scored, or vectors."""
        if self.retrieval is None:
            return len(self.states)
        return sum(map(len, self.retrieval.pooled(self.states, self.lengths)))

    def divergence(self, weights: Weights) -> float:
        """Return the mean distance of other weights."""
        other = self.forward.of(weights)
        states = self._states(other, "held-out text")
        if self.retrieval is not None:
            assert isinstance(other, RetrievalReference)
            return _distance(*(
                np.concatenate(forward.vectors(found, self.lengths))
                for forward, found in ((self.retrieval, self.states), (other, states))
            ))  # fmt: skip
        pairs = zip(self.sequences, self.positions, strict=True)
        targets = np.concatenate([ids[p + 1] for ids, p in pairs])
        total = 0.0
        for start in range(0, self.tokens, ROWS):
            part = slice(start, start + ROWS)
            exact, found = self.forward.logits(self.states[part]), other.logits(states[part])
            total += float(score(exact, found, targets[part]).kld.sum())
        return total / self.tokens

    def _states(self, forward: Reference, stage: str) -> Array:
        count = counting(self.progress, stage, "layers")
        return forward.states(self.sequences, self.positions, count)


def _distance(a: Array, b: Array) -> float:
    """Return one less the mean cosine of two lists of vectors (n, width)."""
    wide = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, (a, b))]
    return float(1 - np.einsum("ij,ij->i", *wide).mean())
