"""Rounding with error feedback: what a column loses is made up for by the columns after it.

GPTQ (Frantar et al., arXiv 2210.17323) on the grids of GGUF's types: a super-block's scales are
searched on the weights as they stand when its turn comes. All arrays are columns first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.grids import GRIDS, Floats, Levels, steps, take_apart
from lfm2gguf.crew import ALONE, Crew
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import quantize

STEP = 256  # columns whose scales are searched together: a super-block
GROUP = 32  # columns between two products
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
    """Put the inverse of the Cholesky factor, lower, in the place of moments.

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
    below = crew.product(moments[h:, :h], first.T)
    second -= crew.product(below, below.T)
    _invert_factor(second, crew)
    moments[h:, :h] = -crew.product(second, crew.product(below, first))
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


def round_with_feedback(
    type: GGMLType, target: Floats, moments: Floats, triangle: Floats
) -> Levels:
    """Quantize ``target`` (columns, rows) so that errors cancel under ``moments``.

    ``triangle`` is :func:`factor` of the moments.
    """
    grid = GRIDS[type]
    w = target.copy()
    importance = np.ascontiguousarray(np.diag(moments), np.float32)
    parts = []
    for start in range(0, len(w), STEP):
        here = slice(start, min(start + STEP, len(w)))
        block = np.ascontiguousarray(w[here].T)
        levels = take_apart(type, quantize(block, type, importance=importance[here]))
        errors = _round_block(grid.codes, levels, w[here], triangle[here, here], type)
        w[here.stop :] -= triangle[here, here.stop :].T @ errors
        parts.append(levels)
    return _joined(parts)


def _round_block(
    codes: Floats, levels: Levels, w: Floats, triangle: Floats, type: GGMLType
) -> Floats:
    """Choose the levels of some columns one after the other; return their scaled errors."""
    grid = GRIDS[type]
    scale, offset = steps(grid, levels)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    errors = np.empty_like(w)
    for start in range(0, len(w), GROUP):
        stop = min(start + GROUP, len(w))
        for k in range(start, stop):
            sub = k // grid.sub_block
            lifted = w[k] if offset is None else w[k] + offset[sub]
            q = levels.q[k] = grid.nearest(lifted * inverse[sub])
            errors[k] = (lifted - scale[sub] * codes[q]) / triangle[k, k]
            w[k + 1 : stop] -= np.multiply.outer(triangle[k, k + 1 : stop], errors[k])
        w[stop:] -= triangle[start:stop, stop:].T @ errors[start:stop]
    return errors


def _joined(parts: list[Levels]) -> Levels:
    def join(name: str) -> npt.NDArray[np.float32]:
        return np.concatenate([getattr(part, name) for part in parts])

    q = np.concatenate([part.q for part in parts])
    if parts[0].dmin is None:
        return Levels(q, join("d"), join("sc"))
    return Levels(q, join("d"), join("sc"), join("dmin"), join("m"))
