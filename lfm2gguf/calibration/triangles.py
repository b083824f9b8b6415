"""Products with triangular matrices, without the half of them that is zero, cut for a crew.

NumPy multiplies whole matrices: pieces of them end where the triangle does.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.crew import ALONE, Crew, pieces

PIECE = 512  # rows or columns that are computed together


def by_upper(a: Floats, upper: Floats, crew: Crew = ALONE) -> Floats:
    """Return ``a @ upper``."""
    out = np.empty_like(a)

    def fill(here: slice) -> None:
        np.matmul(a[:, : here.stop], upper[: here.stop, here], out=out[:, here])

    crew.all(fill, reversed(pieces(len(upper), PIECE)))  # the longest first
    return out


def by_lower(a: Floats, lower: Floats, crew: Crew = ALONE) -> Floats:
    """Return ``a @ lower``."""
    out = np.empty_like(a)

    def fill(here: slice) -> None:
        np.matmul(a[:, here.start :], lower[here.start :, here], out=out[:, here])

    crew.all(fill, pieces(len(lower), PIECE))
    return out


def lower_by(lower: Floats, b: Floats, crew: Crew = ALONE) -> Floats:
    """Return ``lower @ b``."""
    out = np.empty_like(b)

    def fill(here: slice) -> None:
        np.matmul(lower[here, : here.stop], b[: here.stop], out=out[here])

    crew.all(fill, reversed(pieces(len(lower), PIECE)))
    return out


def take_square(out: Floats, a: Floats, crew: Crew = ALONE) -> None:
    """Take ``a @ a.T`` off the lower half of ``out``, and of the upper one what is beside it."""

    def take(here: slice) -> None:
        out[here, : here.stop] -= a[here] @ a[: here.stop].T

    crew.all(take, reversed(pieces(len(out), PIECE)))
