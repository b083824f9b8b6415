"""Rounding with error feedback: what a column loses is made up for by the columns after it.

GPTQ (Frantar et al., arXiv 2210.17323) on the grids of GGUF's types: a super-block's scales are
searched on the weights as they stand when its turn comes. All arrays are columns first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.grids import GRIDS, Floats, Grid, Levels, steps, take_apart
from lfm2gguf.calibration.loops import Loops, loops_for
from lfm2gguf.calibration.refine import GROUP, WINDOW, Refinement
from lfm2gguf.calibration.triangles import by_lower, by_upper, lower_by, take_square
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import quantize

Inverses: TypeAlias = Sequence[Floats]

BASE = 128  # size up to which a matrix is factored column by column


def factor(moments: Floats, crew: Crew = ALONE) -> Floats:
    """Return the upper triangle U with ``inv(moments) = U.T @ U``, float32 (n, n).

    ``moments`` must be positive definite (damped). With ``moments = R @ R.T`` and R upper
    triangular, U is the inverse of R: what :func:`_inverse_factor` finds of the reversed matrix.

    Raises:
        numpy.linalg.LinAlgError: they are not.

    """
    out: Floats = np.array(moments[::-1, ::-1], order="C")
    _invert_factor(out, crew)
    _turn(out)
    return out


def _invert_factor(moments: Floats, crew: Crew) -> None:
    """Put the inverse of the Cholesky factor, lower, in the place of moments (their lower half).

    By halves: all but nothing is products. In place, since of a wide layer each copy is hundreds
    of megabytes.
    """
    n = len(moments)
    if n <= BASE:
        moments[:] = np.tril(np.linalg.inv(np.linalg.cholesky(moments)))
        return
    h = n // 2
    first, second = moments[:h, :h], moments[h:, h:]
    _invert_factor(first, crew)
    below = by_upper(moments[h:, :h], first.T, crew)
    take_square(second, below, crew)
    _invert_factor(second, crew)
    moments[h:, :h] = -lower_by(second, by_lower(below, first, crew), crew)
    moments[:h, h:] = 0


def _turn(square: Floats) -> None:
    """Reverse rows and columns in place."""
    n = len(square)
    h = n // 2
    top = square[:h].copy()
    square[:h] = square[n - h :][::-1, ::-1]
    square[n - h :] = top[::-1, ::-1]
    if n % 2:
        square[h] = square[h, ::-1].copy()


def invert_diagonal(triangle: Floats) -> Inverses:
    """Return the inverses of the blocks on the diagonal, float32 (columns, columns) each."""
    blocks = (triangle[here, here] for here in pieces(len(triangle), WINDOW))
    return [np.linalg.inv(block.astype(np.float64)).astype(np.float32) for block in blocks]


def round_with_feedback(
    type: GGMLType, target: Floats, moments: Floats, triangle: Floats, inverses: Inverses
) -> Levels:
    """Quantize ``target`` (columns, rows) so that errors cancel under ``moments``.

    ``triangle`` is :func:`factor` of the moments, ``inverses`` are those of it. What some
    columns lose in the end, where those after them make up for it as well as can be, is the
    square of ``inverseᵀ @ error``: by that they are refined before their turn is over.
    """
    grid, loops = GRIDS[type], loops_for(target.shape[1])
    w = target.copy()
    importance = np.ascontiguousarray(np.diag(moments), np.float32)
    parts = []
    for here, inverse in zip(pieces(len(w), WINDOW), inverses, strict=True):
        block = np.ascontiguousarray(w[here].T)
        levels = take_apart(type, quantize(block, type, importance=importance[here]))
        _round_block(grid, levels, w[here].copy(), triangle[here, here], loops)
        state = Refinement.start(type, levels, w[here], inverse @ inverse.T)
        state.improve_window(slice(0, here.stop - here.start))
        w[here.stop :] += triangle[here, here.stop :].T @ (inverse.T @ state.error)
        parts.append(levels)
    return _joined(parts)


def _round_block(grid: Grid, levels: Levels, w: Floats, triangle: Floats, loops: Loops) -> None:
    """Choose the levels of some columns one after the other; ``w`` is used up."""
    scale, offset = steps(grid, levels)
    for here in pieces(len(w), GROUP):
        first = here.start // grid.sub_block
        errors = loops.round_columns(
            grid, w[here], scale[first:], None if offset is None else offset[first:],
            np.ascontiguousarray(triangle[here, here]), levels.q[here],
        )  # fmt: skip
        w[here.stop :] -= triangle[here, here.stop :].T @ errors


def _joined(parts: list[Levels]) -> Levels:
    def join(name: str) -> npt.NDArray[np.float32]:
        return np.concatenate([getattr(part, name) for part in parts])

    q = np.concatenate([part.q for part in parts])
    if parts[0].dmin is None:
        return Levels(q, join("d"), join("sc"))
    return Levels(q, join("d"), join("sc"), join("dmin"), join("m"))
