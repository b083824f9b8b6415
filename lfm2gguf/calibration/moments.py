"""Second moments of what a linear layer sees, and what it should make up for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.calibration.streams import Inputs

# Damping follows the features per token: with few tokens the off-diagonal moments are noise.
FEATURES_PER_TOKEN = 1.5
LEAST_DAMPING, MOST_DAMPING = 0.1, 1.0
CORRECTION = 0.5  # the share of earlier layers' errors that is made up for


@dataclass
class Moments:
    """Sums over the tokens of one layer's inputs.

    ``square`` is ``y.T @ y`` (columns, columns), float64, of the quantized stream; ``shift``
    (rows, columns) sums what the output lacks, times ``y``: what earlier layers lost, seen
    through the layer's weights, and what the residual lacks.
    """

    square: npt.NDArray[np.float64]
    shift: dict[str, Floats]
    tokens: int

    @property
    def mean(self) -> Floats:
        """The mean of ``y y.T``, float32."""
        return (self.square / max(self.tokens, 1)).astype(np.float32)

    @property
    def damping(self) -> float:
        """The share of the mean diagonal that is added to the diagonal."""
        needed = FEATURES_PER_TOKEN * len(self.square) / max(self.tokens, 1)
        return float(np.clip(needed, LEAST_DAMPING, MOST_DAMPING))


def gather(blocks: Iterable[Inputs], weights: dict[str, Floats], columns: int) -> Moments:
    """Sum what the layers ``weights`` (rows, columns each) see."""
    square = np.zeros((columns, columns))
    shift = {name: np.zeros_like(w) for name, w in weights.items()}
    tokens = 0
    for block in blocks:
        square += block.y.T @ block.y
        difference = block.x - block.y
        for name, w in weights.items():
            missing = difference @ w.T
            if block.lost is not None:
                missing += block.lost
            shift[name] += missing.T @ block.y
        tokens += len(block.y)
    return Moments(square, shift, tokens)


def damped(mean: Floats, share: float) -> Floats:
    """Return moments that can be factored: a share of the mean diagonal added to it."""
    h = mean.copy()
    diagonal = h.diagonal()
    average = np.float32(diagonal.mean(dtype=np.float64)) or np.float32(1)
    h[np.diag_indices_from(h)] += np.float32(share) * average
    return h


def corrected(weight: Floats, moments: Moments, name: str, triangle: Floats) -> Floats:
    """Return the target (columns, rows): the weight, and half of what its input has lost.

    ``triangle`` is the factor of the inverse of the damped moments, so that
    ``shift @ inverse = (shift @ triangle.T) @ triangle``.
    """
    change = (moments.shift[name] / np.float32(max(moments.tokens, 1))) @ triangle.T @ triangle
    return np.ascontiguousarray((weight + np.float32(CORRECTION) * change).T)
