"""One tensor: rounded with feedback, refined, and never worse than rounded plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lfm2gguf.calibration.feedback import Inverses, factor, invert_diagonal, round_with_feedback
from lfm2gguf.calibration.grids import GRIDS, Bytes, Floats, put_together
from lfm2gguf.calibration.refine import Refinement, loss
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import dequantize, quantize

METHOD = "feedback between refined super-blocks, then refined"
ROWS = 512  # rows that are rounded together: they do not depend on each other


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
    type: GGMLType,
    weight: Floats,
    target: Floats,
    moments: Floats,
    triangle: Floats | None = None,
    crew: Crew = ALONE,
) -> Rounded:
    """Round ``weight`` (rows, columns) so that it does what ``target`` (columns, rows) would do.

    ``moments`` are damped, ``triangle`` their :func:`~lfm2gguf.calibration.feedback.factor`. A type
    without a grid of scales is rounded plainly, weighed by their diagonal.
    """
    inverses = None
    if type in GRIDS:
        triangle = factor(moments, crew) if triangle is None else triangle
        inverses = invert_diagonal(triangle)

    def both(rows: slice) -> tuple[_Rows, _Rows]:
        return _round_rows(
            type, weight[rows], np.ascontiguousarray(target[:, rows]), moments, triangle, inverses
        )

    found, plain = zip(*crew.each(both, pieces(len(weight), ROWS)), strict=True)
    lost, plain_lost = (sum(rows.loss for rows in parts) for parts in (found, plain))
    data = np.concatenate([rows.data for rows in (found if lost < plain_lost else plain)])
    values = dequantize(data, type, weight.shape)
    return Rounded(data, values, min(lost, plain_lost), plain_lost)


class _Rows(NamedTuple):
    data: Bytes
    loss: float


def _round_rows(
    type: GGMLType,
    weight: Floats,
    target: Floats,
    moments: Floats,
    triangle: Floats | None,
    inverses: Inverses | None,
) -> tuple[_Rows, _Rows]:
    """Round some rows with feedback, and plainly."""

    def judged(data: Bytes) -> _Rows:
        values = dequantize(data, type, weight.shape)
        return _Rows(data, loss(np.ascontiguousarray(values.T) - target, moments))

    importance = np.ascontiguousarray(moments.diagonal())
    plain = judged(quantize(weight, type, importance=importance))
    if triangle is None or inverses is None:
        return plain, plain
    levels = round_with_feedback(type, target, moments, triangle, inverses)
    state = Refinement.start(type, levels, target, moments)
    state.improve()
    return judged(put_together(type, state.levels)), plain
