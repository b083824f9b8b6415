"""Q4_0, Q4_1, Q5_0 and Q5_1 with an importance matrix: scales searched, not read off.

From ``quantize_row_q[45]_[01]_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import numpy as np

from lfm2gguf.quants.codec import Blocks, Floats
from lfm2gguf.quants.search import Search, scale_and_min, symmetric_scale
from lfm2gguf.quants.subblocks import as_columns, some


def encode_scale(x: Floats, out: Blocks, weights: Floats, half: int) -> None:
    """Fill in blocks of Q4_0 (``half`` is 8) or Q5_0 (16)."""
    columns, w, *work = as_columns(x, 32)
    np.copyto(w, weights.T)
    levels = np.empty_like(columns)
    out["d"] = symmetric_scale(columns, w, work, half, levels)
    _store(levels, out)


def encode_scale_and_min(x: Floats, out: Blocks, weights: Floats, top: int) -> None:
    """Fill in blocks of Q4_1 (``top`` is 15) or Q5_1 (31)."""
    columns, w, *work = as_columns(x, 32)
    np.copyto(w, weights.T)
    levels = np.empty_like(columns)
    search = Search(top, -0.9, 0.05, 36)
    scale, low, ordinary = scale_and_min(columns, w, work, search, levels)
    odd = np.flatnonzero(~ordinary)
    if len(odd):
        found, *work = np.empty((4, 32, len(odd)), np.float32)
        scale[odd], low[odd], _ = scale_and_min(
            some(columns, odd), some(w, odd), work, search, found, careful=True
        )
        levels[:, odd] = found
    out["d"], out["m"] = scale, low
    _store(levels, out)


def _store(levels: Floats, out: Blocks) -> None:
    """Store the levels (32, n): column j is block j."""
    bits = levels.T.astype(np.uint8)
    if "qh" in (out.dtype.names or ()):
        out["qh"] = np.packbits(bits >> 4, axis=1, bitorder="little")
    out["qs"] = bits[:, :16] & 15 | bits[:, 16:] << 4
