"""One tensor: rounded with feedback, refined, and never worse than rounded plainly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfm2gguf.calibration.feedback import factor, round_with_feedback
from lfm2gguf.calibration.grids import GRIDS, Bytes, Floats, put_together
from lfm2gguf.calibration.refine import Refinement, loss
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import dequantize, quantize

ROUNDS = 2  # of refitting scales and moving levels
ROWS = 8192  # rows that are rounded together: rows do not depend on each other


@dataclass(frozen=True)
class Rounded:
    """A tensor's bytes (rows, row bytes), what they say (rows, columns), and what they lose.

    ``loss`` and ``plain_loss`` (of llama-quantize's rounding) are ``tr(E H E.T)`` against the
    target; ``plain`` says that the plain rounding was kept.
    """

    data: Bytes
    values: Floats
    loss: float
    plain_loss: float

    @property
    def plain(self) -> bool:
        """Whether the plain rounding lost no more."""
        return self.loss >= self.plain_loss


def round_tensor(
    type: GGMLType, weight: Floats, target: Floats, moments: Floats, triangle: Floats | None = None
) -> Rounded:
    """Round ``weight`` (rows, columns) so that it does what ``target`` (columns, rows) would do.

    ``moments`` are damped, ``triangle`` their :func:`~lfm2gguf.calibration.feedback.factor`.
    """
    importance = np.ascontiguousarray(moments.diagonal())
    plain = quantize(weight, type, importance=importance)
    plain_values = dequantize(plain, type, weight.shape)
    plain_loss = loss(np.ascontiguousarray(plain_values.T) - target, moments)
    if type not in GRIDS:
        return Rounded(plain, plain_values, plain_loss, plain_loss)
    triangle = factor(moments) if triangle is None else triangle
    parts = [
        _round_rows(type, np.ascontiguousarray(target[:, start : start + ROWS]), moments, triangle)
        for start in range(0, len(weight), ROWS)
    ]
    data = np.concatenate(parts)
    values = dequantize(data, type, weight.shape)
    found = loss(np.ascontiguousarray(values.T) - target, moments)
    if found < plain_loss:
        return Rounded(data, values, found, plain_loss)
    return Rounded(plain, plain_values, plain_loss, plain_loss)


def _round_rows(type: GGMLType, target: Floats, moments: Floats, triangle: Floats) -> Bytes:
    levels = round_with_feedback(type, target, moments, triangle)
    state = Refinement.start(type, levels, target, moments)
    for _ in range(ROUNDS):
        state.fit_scales()
        state.move_levels()
    return put_together(type, state.levels)
