"""The encoder of the super-blocks that have minima: Q2_K, Q4_K and Q5_K.

From ``quantize_row_q[245]_K_ref`` and ``quantize_row_q[245]_K_impl`` of ggml/src/ggml-quants.c,
llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lfm2gguf.quants.codec import Blocks, Bytes, Floats, nearest_int
from lfm2gguf.quants.descent import positive_scale
from lfm2gguf.quants.search import ZERO, Search, scale_and_min, total
from lfm2gguf.quants.subblocks import Indices, as_columns, divided, scaled, some, unscaled


@dataclass(frozen=True)
class Fit:
    """A search, and the ``most`` that C lets an integer scale be (255: it does not look)."""

    search: Search
    most: int


@dataclass(frozen=True)
class ScaleBits:
    """How the integer scales and minima (n, sub-blocks) are packed into bytes, and unpacked."""

    pack: Callable[[Bytes, Bytes], Bytes]
    unpack: Callable[[Bytes], tuple[Bytes, Bytes]]


@dataclass(frozen=True)
class EncodeWithMin:
    """What a type with minima does of its own, without importance and with it."""

    sub_block: int
    top: int  # of the integer scales
    plain: Fit
    weighted: Fit
    plain_weights: Callable[[Floats, Floats], None]  # from columns, into an array like them
    bits: ScaleBits
    pack_levels: Callable[[Bytes, Blocks], None]

    def __call__(self, x: Floats, out: Blocks, weights: Floats | None) -> None:
        """Fill in the blocks ``out`` (n,) from the weights ``x`` (n, 256)."""
        columns, w, *work = as_columns(x, self.sub_block)
        if weights is None:
            fit = self.plain
            self.plain_weights(columns, w)
        else:
            fit = self.weighted
            np.copyto(w, weights.reshape(-1, self.sub_block).T)
        search = fit.search
        scale, low, ordinary = scale_and_min(columns, w, work, search)
        odd = np.flatnonzero(~ordinary)
        if len(odd):
            scale[odd], low[odd], _ = _fit_carefully(columns, w, search, odd)
        of_blocks = [row.reshape(len(out), -1) for row in (scale, ZERO - low)]
        if weights is None:
            pairs = [_by_largest(values, self.top) for values in of_blocks]
        else:
            sums = total(w).reshape(len(out), -1)
            pairs = [_by_descent(values, sums, self.top) for values in of_blocks]
        (sc, out["d"]), (m, out["dmin"]) = pairs
        out["scales"] = self.bits.pack(np.minimum(sc, fit.most), np.minimum(m, fit.most))
        sc, m = self.bits.unpack(out["scales"])

        d, dmin = scaled(out["d"], sc).reshape(-1), scaled(out["dmin"], m).reshape(-1)
        levels = divided(np.add(columns, dmin, out=work[0]), d, 0, search.nmax)
        lost = unscaled(columns, d, levels)
        if len(lost):  # there C leaves the levels that the search found
            levels[:, lost] = _fit_carefully(columns, w, search, lost)[2]
        self.pack_levels(levels, out)


def _fit_carefully(
    columns: Floats, w: Floats, search: Search, at: Indices
) -> tuple[Floats, Floats, Floats]:
    x = some(columns, at)
    levels, *work = np.empty((4, *x.shape), np.float32)
    scale, low, _ = scale_and_min(x, some(w, at), work, search, levels, careful=True)
    return scale, low, levels


def _by_largest(values: Floats, top: int) -> tuple[Bytes, Floats]:
    """Integers for the scales or minima (n, sub-blocks), and their scale (n,)."""
    # to C's comparisons NaN is never the largest, and 0 is not -0
    largest = np.fmax.reduce(values, axis=1, initial=0) + ZERO
    ratio = np.where(largest > 0, np.float32(top) / largest, ZERO)
    bits = nearest_int(ratio[:, None] * values).astype(np.uint8)
    return bits, largest / np.float32(top)


def _by_descent(values: Floats, weights: Floats, top: int) -> tuple[Bytes, Floats]:
    columns, w = (np.ascontiguousarray(array.T) for array in (values, weights))
    scale, levels = positive_scale(columns, w, top)
    return levels.T, scale
