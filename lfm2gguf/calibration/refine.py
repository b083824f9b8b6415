"""After the rounding: scales fitted anew, and single levels moved, under the quadratic form.

The objective is ``tr(E H E.T)`` for the error ``E = quantized - target`` and the moments ``H``.
Both searches keep ``H @ E`` (columns first) up to date, so that a change of one column or block
is judged exactly, and only changes that gain are made: the objective never grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lfm2gguf.calibration.grids import GRIDS, Floats, Grid, Levels, values
from lfm2gguf.ggml import GGMLType

WINDOW = 256  # columns whose changes reach the columns outside of them in one product
GROUP = 32  # columns whose moves reach the other columns in one product
SINGULAR = np.float32(1e-7)  # relative determinant below which two directions are one
NEIGHBOURS = (-1, 0, 1)


def loss(error: Floats, moments: Floats) -> float:
    """Return ``tr(E H E.T)`` for ``error`` (columns, rows)."""
    return float(np.einsum("cr,cr->", error, moments @ error, dtype=np.float64))


@dataclass
class Refinement:
    """A quantized matrix on its way: ``error`` and ``gradient = moments @ error``."""

    grid: Grid
    levels: Levels
    moments: Floats
    error: Floats
    gradient: Floats

    @classmethod
    def start(cls, type: GGMLType, levels: Levels, target: Floats, moments: Floats) -> Refinement:
        """Begin with ``levels`` for ``target`` (columns, rows)."""
        error = values(GRIDS[type], levels) - target
        return cls(GRIDS[type], levels, moments, error, moments @ error)

    def fit_scales(self) -> None:
        """Fit the sub-scales, then d and dmin, each exactly for the levels as they stand."""
        grid = self.grid
        with np.errstate(over="ignore", invalid="ignore"):
            if grid.scales is not None:
                for window in self._windows():
                    for start in range(window.start, window.stop, grid.sub_block):
                        self._fit_sub_block(slice(start, start + grid.sub_block), window)
            for window in self._windows():
                for start in range(window.start, window.stop, grid.super_block):
                    self._fit_super_block(slice(start, start + grid.super_block), window)

    def move_levels(self) -> None:
        """Give each level in turn its best value, all others held (coordinate descent)."""
        grid, levels = self.grid, self.levels
        scale = np.repeat(levels.d, grid.sub_blocks, axis=0) * levels.sc
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        for window in self._windows():
            for start in range(window.start, window.stop, GROUP):
                stop = min(start + GROUP, window.stop)
                local = self.moments[start:stop, start:stop]
                gradient = self.gradient[start:stop].copy()
                change = np.empty_like(gradient)
                for j in range(stop - start):
                    k, sub = start + j, (start + j) // grid.sub_block
                    here = grid.codes[levels.q[k]]
                    q = grid.nearest(here - gradient[j] * (inverse[sub] / local[j, j]))
                    q = np.where(scale[sub] == 0, levels.q[k], q)
                    change[j] = scale[sub] * (grid.codes[q] - here)
                    levels.q[k] = q
                    gradient[j + 1 :] += np.multiply.outer(local[j + 1 :, j], change[j])
                self._apply(slice(start, stop), window, change)

    def _windows(self) -> Iterator[slice]:
        """Give the columns some super-blocks at a time; what changes reaches the others after.

        The gradient of a whole tensor is larger than a processor's caches: it is gone through
        once a window, not once a sub-block.
        """
        for start in range(0, len(self.error), WINDOW):
            window = slice(start, min(start + WINDOW, len(self.error)))
            before = self.error[window].copy()
            yield window
            change = self.error[window] - before
            for others in (slice(0, start), slice(window.stop, None)):
                self.gradient[others] += self.moments[window, others].T @ change

    def _apply(self, columns: slice, window: slice, change: Floats) -> None:
        self.error[columns] += change
        # symmetric: rows lie together
        self.gradient[window] += self.moments[columns, window].T @ change

    def _fit_sub_block(self, columns: slice, window: slice) -> None:
        """Round the best sub-scale (and minimum) for each row to the grid's integers."""
        grid, limits = self.grid, self.grid.scales
        assert limits is not None
        levels = self.levels
        sub, whole = columns.start // grid.sub_block, columns.start // grid.super_block
        u = grid.codes[levels.q[columns]]
        d, sc = levels.d[whole], levels.sc[sub]
        form = _Form.of(self.moments[columns, columns], u, self.gradient[columns])
        if levels.dmin is None or levels.m is None:
            found = np.clip(np.rint(sc + _ratio(form.best_alone(), d)), *limits)
            found = np.where(form.gain(d * (found - sc)) < 0, found, sc)
            self._apply(columns, window, (d * (found - sc)) * u)
            levels.sc[sub] = found
            return
        dmin, m = levels.dmin[whole], levels.m[sub]
        start, _ = form.best_pair()
        best, best_sc, best_m = np.zeros_like(d), sc, m
        for step in NEIGHBOURS:  # the minimum follows the scale, so its neighbours are tried
            s = np.clip(np.rint(sc + _ratio(start, d)) + np.float32(step), *limits)
            a = d * (s - sc)
            o = np.clip(np.rint(m + _ratio(form.best_offset(a), dmin)), *limits)
            gain = form.gain(a, dmin * (o - m))
            better = gain < best
            best = np.where(better, gain, best)
            best_sc, best_m = np.where(better, s, best_sc), np.where(better, o, best_m)
        self._apply(columns, window, d * (best_sc - sc) * u - dmin * (best_m - m))
        levels.sc[sub], levels.m[sub] = best_sc, best_m

    def _fit_super_block(self, columns: slice, window: slice) -> None:
        """Give d (and dmin) their best float16 for each row."""
        grid, levels = self.grid, self.levels
        whole = columns.start // grid.super_block
        subs = slice(columns.start // grid.sub_block, columns.stop // grid.sub_block)
        u = np.repeat(levels.sc[subs], grid.sub_block, axis=0) * grid.codes[levels.q[columns]]
        d = levels.d[whole]
        local, gradient = self.moments[columns, columns], self.gradient[columns]
        if levels.dmin is None or levels.m is None:
            form = _Form.of(local, u, gradient)
            found = _half(d + form.best_alone())
            found = np.where(form.gain(found - d) < 0, found, d)
            self._apply(columns, window, (found - d) * u)
            levels.d[whole] = found
            return
        dmin = levels.dmin[whole]
        v = np.repeat(levels.m[subs], grid.sub_block, axis=0)
        form = _Form.of(local, u, gradient, v)
        a, o = form.best_pair()
        found, minimum = _half(d + a), _half(dmin + o)
        better = form.gain(found - d, minimum - dmin) < 0
        found, minimum = np.where(better, found, d), np.where(better, minimum, dmin)
        self._apply(columns, window, (found - d) * u - (minimum - dmin) * v)
        levels.d[whole], levels.dmin[whole] = found, minimum


@dataclass(frozen=True)
class _Form:
    """The loss of adding ``a * u - o * v`` to some columns: a quadratic form in a and o, by row."""

    uu: Floats
    ur: Floats
    vv: Floats
    uv: Floats
    vr: Floats

    @classmethod
    def of(cls, moments: Floats, u: Floats, gradient: Floats, v: Floats | None = None) -> _Form:
        v = np.ones_like(u) if v is None else v
        hu, hv = moments @ u, moments @ v
        pairs = ((u, hu), (u, gradient), (v, hv), (v, hu), (v, gradient))
        return cls(*(np.einsum("cr,cr->r", a, b) for a, b in pairs))

    def gain(self, a: Floats, o: Floats | None = None) -> Floats:
        """Return the change of the loss; below zero is better."""
        change: Floats = 2 * a * self.ur + a * a * self.uu
        if o is not None:
            change = change - 2 * o * self.vr - 2 * a * o * self.uv + o * o * self.vv
        return change

    def best_alone(self) -> Floats:
        return -_ratio(self.ur, self.uu)

    def best_offset(self, a: Floats) -> Floats:
        return _ratio(self.vr + a * self.uv, self.vv)

    def best_pair(self) -> tuple[Floats, Floats]:
        determinant = self.uu * self.vv - self.uv * self.uv
        regular = determinant > SINGULAR * self.uu * self.vv
        safe = np.where(regular, determinant, np.float32(1))
        a = (self.vr * self.uv - self.ur * self.vv) / safe
        o = (self.vr * self.uu - self.ur * self.uv) / safe
        zero = np.float32(0)
        return np.where(regular, a, zero), np.where(regular, o, zero)


def _ratio(a: Floats, b: Floats) -> Floats:
    """Return a / b, and 0 where b is 0."""
    ratio: Floats = np.divide(a, b, out=np.zeros_like(a), where=b != 0)
    return ratio


def _half(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # infinity gains nothing, and is not taken
        rounded: Floats = x.astype(np.float16).astype(np.float32)
    return rounded
