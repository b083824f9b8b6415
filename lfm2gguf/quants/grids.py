"""The grids of the IQ1, IQ2 and IQ3 types: which groups of levels can be stored.

The points are those of llama.cpp (commit 0c1e57098, MIT licence, see grids.LICENSE); grids.npz
is made from its source by tests/golden/make_grids.py. The neighbours of groups that are no
points are found as ``iq2xs_init_impl`` and ``iq3xs_init_impl`` of ggml/src/ggml-quants.c do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import QuantizationError
from lfm2gguf.quants.codec import Floats

Codes = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]

FLOAT_MAX = np.finfo(np.float32).max
SLAB = 512  # groups whose neighbours are compared at a time


@dataclass(frozen=True)
class Grid:
    """Points of ``size`` levels each, 0 to ``top``; a group's code has ``bits`` for each level.

    ``n_wanted`` is how many of the smallest distances count as near.
    """

    name: str
    size: int
    bits: int
    top: int
    n_wanted: int

    @cached_property
    def points(self) -> Codes:
        """The codes of the points."""
        with np.load(Path(__file__).with_name("grids.npz")) as file:
            points: Codes = file[self.name].astype(np.int32)
        return points

    @cached_property
    def levels(self) -> Floats:
        """The levels of the points, (size, points)."""
        return self._levels(self.points)

    @cached_property
    def index(self) -> npt.NDArray[np.int16]:
        """For every code the number of its point, or -1."""
        index = np.full(1 << self.bits * self.size, -1, np.int16)
        index[self.points] = np.arange(len(self.points))
        return index

    @cached_property
    def neighbours(self) -> tuple[npt.NDArray[np.int16], Indices, Indices]:
        """Near points, nearest first: a row for each code that is not a point; the row; how many.

        A row's rest repeats its first, which changes no choice of the first that is best.
        """
        codes = np.flatnonzero(self.index < 0).astype(np.int32)
        levels = self._levels(codes)
        within = (levels <= self.top).all(axis=0)
        codes, levels = codes[within], levels[:, within]
        distance = np.zeros((len(codes), len(self.points)), np.float32)
        for own, points in zip(levels, self.levels, strict=True):
            distance += (own[:, None] - points) ** 2
        order = np.argsort(distance, axis=1, kind="stable")
        ordered = np.take_along_axis(distance, order, axis=1)
        rank = np.cumsum(np.diff(ordered, axis=1, prepend=ordered[:, :1]) > 0, axis=1)
        near = rank < self.n_wanted
        counts = near.sum(axis=1)
        table = np.where(near, order, order[:, :1])[:, : counts.max()].astype(np.int16)
        row = np.zeros(len(self.index), np.intp)
        row[codes] = np.arange(len(codes))
        return table, row, counts

    def _levels(self, codes: Codes) -> Floats:
        shifts = self.bits * np.arange(self.size)[:, None]
        return (codes >> shifts & (1 << self.bits) - 1).astype(np.float32)

    def codes(self, levels: Floats) -> Codes:
        """Return the codes (k, n) of groups whose levels are (k, size, n)."""
        total = levels[:, 0].copy()
        for i in range(1, self.size):
            total += levels[:, i] * np.float32(1 << self.bits * i)
        return total.astype(np.int32)

    def nearest(self, codes: Codes, x: Floats, w: Floats, scale: Floats, value: Floats) -> Indices:
        """Return the points nearest to groups whose codes (m,) are not points.

        ``x`` and ``w`` are their weights and the weights of the errors, (size, m); a level l
        stands for ``scale * value[l]``.

        Raises:
            QuantizationError: an error is beyond float32, where ggml gives up.

        """
        table, row, counts = self.neighbours
        values = value[self.levels.astype(np.intp)]
        rows = row[codes]
        order = np.argsort(counts[rows], kind="stable")
        found = np.empty(len(codes), np.intp)
        work = np.empty((3, SLAB * table.shape[1]), np.float32)
        for start in range(0, len(codes), SLAB):
            at = order[start : start + SLAB]
            width = counts[rows[at[-1]]]
            near = np.ascontiguousarray(table[rows[at], :width].T.astype(np.intp))
            error, off, term = (array[: near.size].reshape(near.shape) for array in work)
            error[:] = 0
            for of_points, own, weight in zip(values, x[:, at], w[:, at], strict=True):
                np.take(of_points, near, out=off, mode="clip")
                off *= scale[at]
                off -= own
                np.multiply(off, weight, out=term)
                term *= off
                error += term
            best = error.argmin(axis=0)
            columns = np.arange(len(at))
            if not (error[best, columns] < FLOAT_MAX).all():
                raise too_large()
            found[at] = near[best, columns]
        return found


def too_large() -> QuantizationError:
    """Return the error to raise where ggml's arithmetic overflows and ggml ends the program."""
    return QuantizationError("the weights are too large: the errors' squares overflow float32")


IQ1 = Grid("iq1", 8, 2, 2, 3)
IQ2_XXS = Grid("iq2_xxs", 8, 2, 2, 2)
IQ2_XS = Grid("iq2_xs", 8, 2, 2, 2)
IQ2_S = Grid("iq2_s", 8, 2, 2, 1)
IQ3_XXS = Grid("iq3_xxs", 4, 3, 7, 2)
IQ3_S = Grid("iq3_s", 4, 3, 7, 3)
