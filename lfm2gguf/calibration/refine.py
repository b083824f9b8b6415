"""After the rounding: scales fitted anew, and single levels moved, under the quadratic form.

The objective is ``tr(E H E.T)`` for the error ``E = quantized - target`` and the moments ``H``.
All searches keep ``H @ E`` (columns first) up to date, so that a change of one column or block
is judged exactly, and only changes that gain are made: the objective never grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfm2gguf.calibration.grids import GRIDS, Floats, Grid, Levels, values
from lfm2gguf.calibration.loops import Loops, Sums, loops_for
from lfm2gguf.crew import pieces
from lfm2gguf.ggml import GGMLType

WINDOW = 256  # columns whose changes reach those after them in one product
REPEATS = 2  # in a window, before its changes reach those after it
GROUP = 32  # columns whose moves reach the other columns in one product


def loss(error: Floats, moments: Floats) -> float:
    """Return ``tr(E H E.T)`` for ``error`` (columns, rows); ``moments`` are symmetric."""
    total = 0.0
    for here in pieces(len(error), WINDOW):
        own = moments[here, here] @ error[here]
        own += 2 * (moments[here, : here.start] @ error[: here.start])
        total += float(np.einsum("cr,cr->", error[here], own, dtype=np.float64))
    return total


@dataclass
class Refinement:
    """A quantized matrix on its way: ``error`` and ``gradient = moments @ error``."""

    grid: Grid
    levels: Levels
    moments: Floats
    error: Floats
    gradient: Floats
    loops: Loops

    @classmethod
    def start(cls, type: GGMLType, levels: Levels, target: Floats, moments: Floats) -> Refinement:
        """Begin with ``levels`` for ``target`` (columns, rows)."""
        error = values(GRIDS[type], levels) - target
        loops = loops_for(error.shape[1])
        return cls(GRIDS[type], levels, moments, error, moments @ error, loops)

    def improve(self) -> None:
        """Go through all columns once, some super-blocks at a time.

        The gradient is kept up to date in the columns ahead alone. That of a whole tensor is
        larger than a processor's caches: it is gone through once a window.
        """
        for window in pieces(len(self.error), WINDOW):
            before = self.error[window].copy()
            self.improve_window(window)
            ahead, change = slice(window.stop, None), self.error[window] - before
            self.gradient[ahead] += self.moments[ahead, window] @ change

    def improve_window(self, window: slice) -> None:
        """Fit the sub-scales of some columns, then d and dmin, then give each level its best value.

        Each is exact for all others as they stand. The gradient of these columns alone is kept.
        """
        grid = self.grid
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(REPEATS):
                if grid.scales is not None:
                    for columns in _parts(window, grid.sub_block):
                        self.fit_sub_block(columns, window)
                for columns in _parts(window, grid.super_block):
                    self.fit_super_block(columns, window)
                self.move_levels(window)

    def move_levels(self, window: slice) -> None:
        """Give each level in turn its best value (coordinate descent)."""
        grid, levels = self.grid, self.levels
        subs = slice(window.start // grid.sub_block, window.stop // grid.sub_block)
        wholes = slice(window.start // grid.super_block, window.stop // grid.super_block)
        scale = np.repeat(levels.d[wholes], grid.sub_blocks, axis=0) * levels.sc[subs]
        for columns in _parts(window, GROUP):
            first = (columns.start - window.start) // grid.sub_block
            local = np.ascontiguousarray(self.moments[columns, columns])
            change = self.loops.move_levels(
                grid, levels.q[columns], scale[first:], local, self.gradient[columns]
            )
            self.error[columns] += change
            self.gradient[window] += self.moments[window, columns] @ change

    def fit_sub_block(self, columns: slice, window: slice) -> None:
        """Round the best sub-scale (and minimum) for each row to the grid's integers."""
        grid, levels, limits = self.grid, self.levels, self.grid.scales
        assert limits is not None
        sub, whole = columns.start // grid.sub_block, columns.start // grid.super_block
        d, sc = levels.d[whole], levels.sc[sub]
        form = self._form(columns, window, grid.codes[levels.q[columns]])
        if levels.dmin is None or levels.m is None:
            found = self.loops.best_scale(form.sums, d, sc, limits)
            self._add(form, d * (found - sc))
            levels.sc[sub] = found
            return
        dmin, m = levels.dmin[whole], levels.m[sub]
        found, minimum = self.loops.best_scales(form.sums, d, sc, dmin, m, limits)
        self._add(form, d * (found - sc), dmin * (minimum - m))
        levels.sc[sub], levels.m[sub] = found, minimum

    def fit_super_block(self, columns: slice, window: slice) -> None:
        """Give d (and dmin) their best float16 for each row."""
        grid, levels = self.grid, self.levels
        whole = columns.start // grid.super_block
        subs = slice(columns.start // grid.sub_block, columns.stop // grid.sub_block)
        u = grid.codes[levels.q[columns]] * np.repeat(levels.sc[subs], grid.sub_block, axis=0)
        d = levels.d[whole]
        if levels.dmin is None or levels.m is None:
            form = self._form(columns, window, u)
            found = _half(d + form.sums.best_alone())
            found = np.where(form.sums.gain(found - d) < 0, found, d)
            self._add(form, found - d)
            levels.d[whole] = found
            return
        dmin = levels.dmin[whole]
        form = self._form(columns, window, u, levels.m[subs])
        a, o = form.sums.best_pair()
        found, minimum = _half(d + a), _half(dmin + o)
        better = form.sums.gain(found - d, minimum - dmin) < 0
        found, minimum = np.where(better, found, d), np.where(better, minimum, dmin)
        self._add(form, found - d, minimum - dmin)
        levels.d[whole], levels.dmin[whole] = found, minimum

    def _form(
        self, columns: slice, window: slice, u: Floats, minima: Floats | None = None
    ) -> _Form:
        """Return the form of u, and of what is taken off: a minimum for each sub-block, or ones."""
        moments = self.moments[window, columns]
        hu, gradient, dots = moments @ u, self.gradient[columns], self.loops.dots
        inner = slice(columns.start - window.start, columns.stop - window.start)
        uu, ur = dots(u, hu[inner]), dots(u, gradient)
        if self.levels.m is None:
            return _Form(columns, window, u, hu, Sums(uu, ur))
        if minima is None:
            minima = np.ones((1, u.shape[1]), np.float32)
        size = len(u) // len(minima)
        together = moments.reshape(len(moments), -1, size).sum(axis=2)
        # a BLAS is slow at products over one number
        hv = together @ minima if len(minima) > 1 else together * minima
        v = np.repeat(minima, size, axis=0)
        sums = Sums(uu, ur, dots(v, hv[inner]), dots(u, hv[inner]), dots(v, gradient))
        return _Form(columns, window, u, hu, sums, v, hv)

    def _add(self, form: _Form, a: Floats, o: Floats | None = None) -> None:
        """Add ``a * u - o * v`` to the columns of a form."""
        add = self.loops.add_scaled
        add(self.error[form.columns], a, form.u)
        add(self.gradient[form.window], a, form.hu)
        if o is not None:
            assert form.v is not None
            assert form.hv is not None
            add(self.error[form.columns], -o, form.v)
            add(self.gradient[form.window], -o, form.hv)


@dataclass(frozen=True)
class _Form:
    """What adding ``a * u - o * v`` to some columns does.

    ``hu`` and ``hv`` are what it does to the gradient of the whole window, the sums to the loss.
    """

    columns: slice
    window: slice
    u: Floats
    hu: Floats
    sums: Sums
    v: Floats | None = None
    hv: Floats | None = None


def _parts(columns: slice, size: int) -> list[slice]:
    """Cut columns into slices of ``size``."""
    parts = pieces(columns.stop - columns.start, size)
    return [slice(columns.start + part.start, columns.start + part.stop) for part in parts]


def _half(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # infinity gains nothing, and is not taken
        rounded: Floats = x.astype(np.float16).astype(np.float32)
    return rounded
