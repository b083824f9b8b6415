"""How calibration multiplies: in bfloat16 where numba and the processor can, else in float32.

Checkpoints are bfloat16, and llama.cpp rounds what such weights see to it: it costs the exact
stream nothing that matters, and moments are means over many tokens. Sums are float32, and float64
over blocks of tokens. Processors with AVX512_BF16 take half the time for it; everywhere else, and
with ``LFM2GGUF_KERNELS=numpy``, products are NumPy's in float32. Verification and the importance
matrix know none of this.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.quants import compiled_products
from lfm2gguf.reference import Multiplier
from lfm2gguf.reference import multiplier as in_float32

PACKED_TOGETHER = 8  # groups of columns


class Features(Protocol):
    """What some tokens have in columns, to be multiplied over the tokens."""

    def add_product(
        self, rows: slice, other: Any, start: int, total: npt.NDArray[np.float64]
    ) -> None:
        """Add ``self[:, rows].T @ other[:, start:]`` to ``total``, which is C-contiguous."""


class _Exact:
    """Features in float32."""

    def __init__(self, values: Floats) -> None:
        self._values = values

    def add_product(
        self, rows: slice, other: _Exact, start: int, total: npt.NDArray[np.float64]
    ) -> None:
        total += self._values[:, rows].T @ other._values[:, start:]


class _Packed:
    """Features in bfloat16, packed; rows begin at multiples of 8."""

    def __init__(self, values: Floats, crew: Crew, compiled: Any) -> None:
        self._compiled = compiled
        tokens, self._columns = values.shape
        self._pairs = -(-tokens // 2)
        self._size = self._pairs * compiled.WIDTH  # of a group
        groups = compiled.groups(self._columns)
        self._packed = np.empty(groups * self._size, np.uint32)
        flat = _flat(values)

        def pack(part: slice) -> None:
            out = self._packed[part.start * self._size : part.stop * self._size]
            compiled.pack_columns(flat, tokens, self._columns, part.start, out)

        crew.all(pack, pieces(groups, PACKED_TOGETHER))

    def add_product(
        self, rows: slice, other: _Packed, start: int, total: npt.NDArray[np.float64]
    ) -> None:
        self._compiled.multiply(
            self._packed, (rows.start, rows.stop), other._packed, (start, other._columns),
            self._pairs, total.reshape(-1), 0, total.shape[1], False,
        )  # fmt: skip


def features(values: Floats, crew: Crew = ALONE) -> Features:
    """Make what some tokens have, (tokens, columns), ready to be multiplied several times."""
    compiled = compiled_products()
    return _Exact(values) if compiled is None else _Packed(values, crew, compiled)


def multiplier(x: Floats) -> Multiplier:
    """Return what fills ``out`` (tokens, rows) with ``x @ weight.T``, given ``weight, out``.

    The rows of ``out`` are contiguous. Threads may use it side by side.
    """
    compiled = compiled_products()
    if compiled is None:
        return in_float32(x)
    tokens, columns = x.shape
    packed = np.empty(
        compiled.groups(tokens) * compiled.pairs_of(columns) * compiled.WIDTH, np.uint32
    )
    compiled.pack_rows(_flat(x), tokens, columns, 0, packed)

    def multiply(weight: Floats, out: Floats) -> None:
        step = out.strides[0] // out.itemsize
        reach = (tokens - 1) * step + len(weight) if tokens else 0
        flat = as_strided(out, (reach,), (out.itemsize,))
        compiled.product(packed, tokens, _flat(weight), *weight.shape, flat, step)

    return multiply


def recorded() -> str:
    """Return how products are made here, as a calibrated file says it."""
    return "float32" if compiled_products() is None else "bfloat16, summed in float32"


def _flat(array: Floats) -> Floats:
    """The numbers as compiled kernels take them: they are compiled for each kind of array anew."""
    flat = np.ascontiguousarray(array).reshape(-1).view()
    flat.flags.writeable = False
    return flat
