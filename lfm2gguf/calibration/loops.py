"""The innermost loops of rounding: NumPy's, or the same ones compiled by numba, to the same bits.

They go through columns one after the other, and take most of the time where arrays are small.
Matrices are (columns, rows), of neighbouring columns, C-contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.grids import Floats, Grid
from lfm2gguf.quants import compiled_rounding

Levels = npt.NDArray[np.uint8]

SINGULAR = np.float32(1e-7)  # relative determinant below which two directions are one
NEIGHBOURS = (-1, 0, 1)
ZEROS = np.zeros(1, np.float32)


class Sums(NamedTuple):
    """The loss of adding ``a * u - o * v`` to some columns: a quadratic form in a and o, by row.

    All are (rows,). Those with a v are of no use without one.
    """

    uu: Floats
    ur: Floats
    vv: Floats = ZEROS
    uv: Floats = ZEROS
    vr: Floats = ZEROS

    def gain(self, a: Floats, o: Floats | None = None) -> Floats:
        """Return the change of the loss; below zero is better."""
        change: Floats = 2 * a * self.ur + a * a * self.uu
        if o is not None:
            change = change - 2 * o * self.vr - 2 * a * o * self.uv + o * o * self.vv
        return change

    def best_alone(self) -> Floats:
        """Return the best a."""
        return -_ratio(self.ur, self.uu)

    def best_offset(self, a: Floats) -> Floats:
        """Return the best o beside an a."""
        return _ratio(self.vr + a * self.uv, self.vv)

    def best_pair(self) -> tuple[Floats, Floats]:
        """Return the best a and o; zeros where u and v are in one direction."""
        determinant = self.uu * self.vv - self.uv * self.uv
        regular = determinant > SINGULAR * self.uu * self.vv
        safe = np.where(regular, determinant, np.float32(1))
        a = (self.vr * self.uv - self.ur * self.vv) / safe
        o = (self.vr * self.uu - self.ur * self.uv) / safe
        zero = np.float32(0)
        return np.where(regular, a, zero), np.where(regular, o, zero)


class Loops:
    """The loops by NumPy, which are the specification."""

    def round_columns(
        self,
        grid: Grid,
        w: Floats,
        scale: Floats,
        offset: Floats | None,
        triangle: Floats,
        q: Levels,
    ) -> Floats:
        """Round columns of ``w`` into ``q``; return what each loses, over its diagonal.

        What a column loses is taken off those after it in ``w``, by its row of ``triangle``.
        ``scale`` and ``offset`` are (sub-blocks, rows), from these columns' on.
        """
        errors, inverse = np.empty_like(w), _inverse(scale)
        for j in range(len(w)):
            sub = j // grid.sub_block
            lifted = w[j] if offset is None else w[j] + offset[sub]
            q[j] = grid.nearest(lifted * inverse[sub])
            errors[j] = (lifted - scale[sub] * grid.codes[q[j]]) / triangle[j, j]
            w[j + 1 :] -= np.multiply.outer(triangle[j, j + 1 :], errors[j])
        return errors

    def move_levels(
        self, grid: Grid, q: Levels, scale: Floats, local: Floats, gradient: Floats
    ) -> Floats:
        """Give each level in turn its best value, all others held; return what changes.

        ``local`` are the moments of these columns, ``gradient`` is that before.
        """
        gradient, change, inverse = gradient.copy(), np.empty_like(gradient), _inverse(scale)
        for j in range(len(q)):
            sub = j // grid.sub_block
            here = grid.codes[q[j]]
            moved = grid.nearest(here - gradient[j] * (inverse[sub] / local[j, j]))
            moved = np.where(scale[sub] == 0, q[j], moved)
            change[j] = scale[sub] * (grid.codes[moved] - here)
            q[j] = moved
            gradient[j + 1 :] += np.multiply.outer(local[j + 1 :, j], change[j])
        return change

    def dots(self, a: Floats, b: Floats) -> Floats:
        """Return (rows,): the sums of ``a * b`` over the columns, one after the other."""
        sums: Floats = (a * b).sum(axis=0)
        return sums

    def add_scaled(self, out: Floats, a: Floats, x: Floats) -> None:
        """Add ``a * x`` to ``out``; of ``a`` there is one for each row."""
        out += a * x

    def best_scale(self, sums: Sums, d: Floats, sc: Floats, limits: tuple[int, int]) -> Floats:
        """Return the sub-scales that are best beside d."""
        found: Floats = np.clip(np.rint(sc + _ratio(sums.best_alone(), d)), *limits)
        best: Floats = np.where(sums.gain(d * (found - sc)) < 0, found, sc)
        return best

    def best_scales(
        self,
        sums: Sums,
        d: Floats,
        sc: Floats,
        dmin: Floats,
        m: Floats,
        limits: tuple[int, int],
    ) -> tuple[Floats, Floats]:
        """Return the sub-scales and minima that are best beside d and dmin.

        A scale is the nearest integer or one beside it, since the minimum follows.
        """
        start = np.rint(sc + _ratio(sums.best_pair()[0], d))
        best, best_sc, best_m = np.zeros_like(d), sc, m
        for step in NEIGHBOURS:
            s = np.clip(start + np.float32(step), *limits)
            a = d * (s - sc)
            o: Floats = np.clip(np.rint(m + _ratio(sums.best_offset(a), dmin)), *limits)
            gain = sums.gain(a, dmin * (o - m))
            better = gain < best
            best = np.where(better, gain, best)
            best_sc, best_m = np.where(better, s, best_sc), np.where(better, o, best_m)
        return best_sc, best_m


class _Compiled(Loops):
    """The same by :mod:`lfm2gguf.quants.compiled.rounding`."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def round_columns(
        self,
        grid: Grid,
        w: Floats,
        scale: Floats,
        offset: Floats | None,
        triangle: Floats,
        q: Levels,
    ) -> Floats:
        errors = np.empty_like(w)
        offset = _NONE if offset is None else offset
        self._compiled.round_columns(
            *_codes(grid), _flat(w), _flat(scale), _flat(_inverse(scale)), _flat(offset),
            _flat(triangle), _flat(q), _flat(errors),
        )  # fmt: skip
        return errors

    def move_levels(
        self, grid: Grid, q: Levels, scale: Floats, local: Floats, gradient: Floats
    ) -> Floats:
        change = np.empty_like(gradient)
        self._compiled.move_levels(
            *_codes(grid), _flat(q), _flat(scale), _flat(_inverse(scale)), _flat(local),
            _flat(gradient.copy()), _flat(change),
        )  # fmt: skip
        return change

    def dots(self, a: Floats, b: Floats) -> Floats:
        sums = np.empty(a.shape[1], np.float32)
        self._compiled.dots(_flat(a), _flat(b), sums)
        return sums

    def add_scaled(self, out: Floats, a: Floats, x: Floats) -> None:
        self._compiled.add_scaled(_flat(out), a, _flat(x))

    def best_scale(self, sums: Sums, d: Floats, sc: Floats, limits: tuple[int, int]) -> Floats:
        out = np.empty_like(sc)
        self._compiled.best_scale(sums.uu, sums.ur, d, sc, *limits, out)
        return out

    def best_scales(
        self,
        sums: Sums,
        d: Floats,
        sc: Floats,
        dmin: Floats,
        m: Floats,
        limits: tuple[int, int],
    ) -> tuple[Floats, Floats]:
        out, minima = np.empty_like(sc), np.empty_like(m)
        self._compiled.best_scales(*sums, d, sc, dmin, m, *limits, out, minima)
        return out, minima


NUMPY = Loops()
_NONE = np.empty(0, np.float32)


def loops_for(rows: int) -> Loops:
    """Return the loops for so many rows: compiled ones where there are whole vectors of them."""
    compiled = compiled_rounding()
    return NUMPY if compiled is None or rows % compiled.LANES else _Compiled(compiled)


def _ratio(a: Floats, b: Floats) -> Floats:
    """Return a / b, and 0 where b is 0."""
    ratio: Floats = np.divide(a, b, out=np.zeros_like(a), where=b != 0)
    return ratio


def _inverse(scale: Floats) -> Floats:
    """Return 1 / scale, and 0 where that is 0."""
    inverse: Floats = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    return inverse


def _codes(grid: Grid) -> tuple[Floats, Floats, int]:
    return grid.codes, _NONE if grid.uniform else grid.middles, grid.sub_block


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view: what is not contiguous would be filled in vain."""
    assert array.flags.c_contiguous
    return array.reshape(-1)
