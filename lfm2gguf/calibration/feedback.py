"""Rounding with error feedback: what a column loses is made up for by the columns after it.

GPTQ (Frantar et al., arXiv 2210.17323) on the grids of GGUF's types: the scales are given, and the
columns that see most come first, while there are many left to make up for them. All arrays are
columns first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lfm2gguf.calibration.crew import ALONE, Crew
from lfm2gguf.calibration.grids import Floats, Grid, Levels, steps
from lfm2gguf.calibration.streams import Indices

STEP = 256  # columns between two products that reach all others
GROUP = 32  # columns between two products within a step
BASE = 128  # size up to which a matrix is factored column by column


@dataclass(frozen=True)
class Factored:
    """Damped moments (n, n) by a triangle: ``inv(moments[order][:, order]) = U.T @ U``.

    ``triangle`` is U, upper, float32; ``order`` has the columns by falling mean squares.
    """

    order: Indices
    triangle: Floats

    def solve(self, rows: Floats, crew: Crew = ALONE) -> Floats:
        """Return ``rows @ inv(moments)``."""
        found = crew.product(crew.product(rows[:, self.order], self.triangle.T), self.triangle)
        out = np.empty_like(found)
        out[:, self.order] = found
        return out


def factor(moments: Floats, crew: Crew = ALONE) -> Factored:
    """Factor moments, which must be positive definite (damped).

    With ``moments = R @ R.T`` and R upper triangular, U is the inverse of R: what
    :func:`_inverse_factor` finds of the reversed matrix.

    Raises:
        numpy.linalg.LinAlgError: they are not.

    """
    order = np.argsort(-moments.diagonal(), kind="stable")
    last_first = order[::-1]
    reverse = _inverse_factor(moments[np.ix_(last_first, last_first)], crew)
    return Factored(order, np.ascontiguousarray(reverse[::-1, ::-1]))


def _inverse_factor(moments: Floats, crew: Crew) -> Floats:
    """Return the inverse of the Cholesky factor, lower, by halves: all but nothing is products."""
    n = len(moments)
    out = np.zeros_like(moments)
    if n <= BASE:
        out[:] = np.tril(np.linalg.inv(np.linalg.cholesky(moments)))
        return out
    h = n // 2
    first = out[:h, :h] = _inverse_factor(moments[:h, :h], crew)
    below = crew.product(moments[h:, :h], first.T)
    second = out[h:, h:] = _inverse_factor(moments[h:, h:] - crew.product(below, below.T), crew)
    out[h:, :h] = -crew.product(second, crew.product(below, first))
    return out


def round_with_feedback(grid: Grid, start: Levels, target: Floats, moments: Factored) -> Levels:
    """Choose levels anew, with the scales of ``start``, so that errors cancel under the moments.

    ``target`` is (columns, rows).
    """
    order, triangle = moments.order, moments.triangle
    scale, offset = steps(grid, start)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    w, q = target[order], np.empty_like(start.q)
    for first in range(0, len(w), STEP):
        stop = min(first + STEP, len(w))
        errors = np.empty((stop - first, w.shape[1]), np.float32)
        for low in range(first, stop, GROUP):
            high = min(low + GROUP, stop)
            for k in range(low, high):
                sub = order[k] // grid.sub_block
                lifted = w[k] if offset is None else w[k] + offset[sub]
                level = q[order[k]] = grid.nearest(lifted * inverse[sub])
                lost = lifted - scale[sub] * grid.codes[level]
                error = errors[k - first] = lost / triangle[k, k]
                w[k + 1 : high] -= np.multiply.outer(triangle[k, k + 1 : high], error)
            w[high:stop] -= triangle[low:high, high:stop].T @ errors[low - first : high - first]
        w[stop:] -= triangle[first:stop, stop:].T @ errors
    return replace(start, q=q)
