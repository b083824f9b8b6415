"""The search of the IQ2 and IQ3 types: a sub-block's scale, signs and points of a grid.

From ``quantize_row_iq[23]_*_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one
sub-block per column, as in :mod:`lfm2gguf.quants.search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Bytes, Floats, nearest_int
from lfm2gguf.quants.descent import positive_scale
from lfm2gguf.quants.grids import Codes, Grid, Indices, too_large
from lfm2gguf.quants.search import ONE, ZERO, round_levels, total

HALF = np.float32(0.5)


@dataclass(frozen=True)
class Found:
    """For each sub-block (column): its scale, the points of its groups, the signs by eights.

    ``empty`` are those that ggml does not store at all; their points and signs are 0.
    """

    scale: Floats
    points: Indices
    signs: Bytes
    empty: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lattice:
    """A type's search: ``tries`` scales on both sides, ``step`` apart in levels.

    ``least`` is the largest weight of a sub-block that is not empty, and ``even`` whether the
    signs of eight weights have to be even in number; ``after`` is which sub-blocks are fitted
    once more: those "off" the grid, in their groups that are off, or in all with "off, whole",
    or "all". With ``first_fit`` the first scale comes from ``make_qp_quants``.
    """

    grid: Grid
    tries: int
    step: float
    least: float
    even: bool
    after: str
    first_fit: bool = False

    @property
    def _top(self) -> np.float32:
        return np.float32(2 * self.grid.top + 1)  # of 1, 3, 5, ..., which the levels stand for

    def search(self, signed: Floats, w: Floats) -> Found:
        """Fit the columns of ``signed`` (sub-block, n), squared errors weighed by ``w``.

        Raises:
            QuantizationError: weights so large that ggml gives up.

        """
        x, signs = _without_signs(signed, w, self.even)
        peak: Floats = x.max(axis=0)
        empty = peak < self.least
        if self.first_fit:
            scale, _ = positive_scale(x, w, self.grid.top + 2)
            peak = scale * np.float32(self.grid.top + 1)
            empty |= peak <= 0
        peak[empty] = ONE
        if not self.first_fit:
            scale = peak / self._top
        groups = _Groups(self.grid, x, w)
        best = np.zeros_like(scale)
        points = np.zeros(groups.shape, np.intp)
        on_grid = np.full(groups.shape, self.after != "off, whole")
        for i in range(-self.tries, self.tries + 1):
            inverse = (self._top + np.float32(i) * np.float32(self.step)) / peak
            tried, on = groups.points(inverse, ONE / inverse)
            sum_qx, sum_q2 = groups.sums(tried)
            better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
            this_scale = sum_qx / sum_q2
            np.putmask(scale, better, this_scale)
            np.putmask(best, better, this_scale * sum_qx)
            np.copyto(points, tried, where=better)
            np.copyto(on_grid, on, where=better)
        again = (scale > 0) & ~empty
        if self.after != "all":
            again &= ~on_grid.all(axis=0)
        self._fit_again(np.flatnonzero(again), x, w, scale, points, on_grid)
        if not (scale[~empty] == scale[~empty]).all():
            raise too_large()
        return _finished(scale, points, signs, empty, self.even)

    def _fit_again(
        self,
        at: Indices,
        x: Floats,
        w: Floats,
        scale: Floats,
        points: Indices,
        on_grid: npt.NDArray[np.bool_],
    ) -> None:
        """Find the points again under the scale that was found, and the scale under them."""
        if not len(at):
            return
        groups = _Groups(self.grid, np.take(x, at, axis=1), np.take(w, at, axis=1))
        found, _ = groups.points(ONE / scale[at], scale[at])
        if self.after == "off":
            found = np.where(on_grid[:, at], points[:, at], found)
        points[:, at] = found
        sum_qx, sum_q2 = groups.sums(found)
        scale[at] = np.where(sum_q2 > 0, sum_qx / sum_q2, scale[at])


def _finished(
    scale: Floats, points: Indices, signs: Bytes, empty: npt.NDArray[np.bool_], even: bool
) -> Found:
    minus = scale < 0
    scale[minus] = -scale[minus]
    signs[:, minus] = ~signs[:, minus] & np.uint8(127 if even else 255)
    scale[empty] = 0
    points[:, empty] = 0
    signs[:, empty] = 0
    return Found(scale, points, signs, empty)


def _without_signs(signed: Floats, w: Floats, even: bool) -> tuple[Floats, Bytes]:
    """Absolute values, and the signs of eight at a time (k, n), a bit each.

    To make them ``even`` the sign of the weight that matters least is given up.
    """
    n = signed.shape[1]
    x = np.abs(signed)
    minus = (signed < 0).reshape(-1, 8, n)
    signs = np.packbits(minus, axis=1, bitorder="little")[:, 0]
    if even:
        k, column = np.nonzero(np.logical_xor.reduce(minus, axis=1))
        cost = (w * signed * signed).reshape(-1, 8, n)[k, :, column]
        # infinity times zero is less than nothing to C, and nothing is less than it
        cost[np.isnan(cost[:, 0]), 0] = -np.inf
        cost[np.isnan(cost)] = np.inf
        at = cost.argmin(axis=1)
        x[8 * k + at, column] *= -1
        signs[k, column] ^= (1 << at).astype(np.uint8)
        signs &= 127
    return x, signs


class _Groups:
    """The weights of sub-blocks (columns), by the groups that a grid's points are for."""

    def __init__(self, grid: Grid, x: Floats, w: Floats) -> None:
        self._grid = grid
        self._x, self._w, self._wx = x, w, w * x
        self._t, self._a = np.empty_like(x), np.empty_like(x)
        self.shape = (len(x) // grid.size, x.shape[1])
        self._of_groups = [self._as_columns(x), self._as_columns(np.sqrt(w))]

    def _as_columns(self, array: Floats) -> Floats:
        k, n = self.shape
        by_level = array.reshape(k, self._grid.size, n).transpose(1, 0, 2)
        return np.ascontiguousarray(by_level).reshape(self._grid.size, -1)

    def points(self, inverse: Floats, scale: Floats) -> tuple[Indices, npt.NDArray[np.bool_]]:
        """Return each group's point under its column's scale, and whether its levels are it."""
        codes = self._codes(inverse)
        points = self._grid.index[codes].astype(np.intp)
        on_grid = points >= 0
        off = np.flatnonzero(~on_grid)
        if len(off):
            x, w = (np.take(array, off, axis=1) for array in self._of_groups)
            of_column = scale[off % self.shape[1]]
            odd = np.arange(1, 2 * self._grid.top + 2, 2, dtype=np.float32)
            found = self._grid.nearest(codes.reshape(-1)[off], x, w, of_column, odd)
            points.reshape(-1)[off] = found
        return points, on_grid

    def _codes(self, inverse: Floats) -> Codes:
        t = np.multiply(self._x, inverse, out=self._t)
        t -= ONE
        t *= HALF
        round_levels(t, 0, self._grid.top, float(t.min()), float(t.max()))
        return self._grid.codes(t.reshape(self.shape[0], self._grid.size, -1))

    def sums(self, points: Indices) -> tuple[Floats, Floats]:
        """Return the sums of w * x * q and w * q * q for the points' levels q = 1, 3, 5, ..."""
        q, a = self._t, self._a
        of_groups = q.reshape(self.shape[0], self._grid.size, -1)
        for i, levels in enumerate(self._grid.levels):
            np.take(levels + levels + ONE, points, out=of_groups[:, i], mode="clip")
        sum_qx = total(np.multiply(self._wx, q, out=a))
        np.multiply(self._w, q, out=a)
        return sum_qx, total(np.multiply(a, q, out=a))


def scale_bits(scale: Floats, divisor: int, most: int) -> tuple[Bytes, Floats]:
    """Return integers l (n, sub-blocks) for scales of 2 * l + 1 times the block's (n,)."""
    d = scale.max(axis=1) / np.float32(divisor)
    t = np.where(d > 0, ONE / d, ZERO)[:, None] * scale
    t -= ONE
    t *= HALF
    return np.clip(nearest_int(t), 0, most).astype(np.uint8), d


def by_blocks(array: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Return what is known of groups (k, sub-blocks), as (n, groups of a block)."""
    return np.ascontiguousarray(array.T).reshape(n, -1)
