"""How calibration multiplies: in bfloat16 where numba and the processor can, else in float32.

Checkpoints are bfloat16, what their layers see is rounded to it as llama.cpp does that runs such
files, and moments are means over many tokens. Sums are float32, and float64 over blocks of tokens.
Processors with AVX512_BF16 take half the time for it. Everywhere else, and with
``LFM2GGUF_KERNELS=numpy``, products are NumPy's in float32, as those of verification and of the
importance matrix are everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import compiled_products
from lfm2gguf.reference import Multiplier, multiplier

PACKED_TOGETHER = 8  # groups of columns
# What rounding to bfloat16 takes from their weights is not little beside what they lose themselves:
# the example model's Q8_0 has 2.7 % more KL divergence with it, none of Q2_K to Q6_K has.
EXACT = (GGMLType.Q8_0,)


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


@dataclass(frozen=True)
class Products:
    """A way to multiply: in bfloat16 with the ``compiled`` products, else in float32."""

    compiled: Any | None = None

    def features(self, values: Floats, crew: Crew = ALONE) -> Features:
        """Make what some tokens have, (tokens, columns), ready to be multiplied several times."""
        return _Packed(values, crew, self.compiled) if self.compiled else _Exact(values)

    def multiplier(self, x: Floats) -> Multiplier:
        """Return what fills ``out`` (tokens, rows) with ``x @ weight.T``, given ``weight, out``.

        The rows of ``out`` are contiguous. Threads may use it side by side.
        """
        compiled = self.compiled
        if compiled is None:
            return multiplier(x)
        tokens, columns = x.shape
        size = compiled.groups(tokens) * compiled.pairs_of(columns) * compiled.WIDTH
        packed = np.empty(size, np.uint32)
        compiled.pack_rows(_flat(x), tokens, columns, 0, packed)

        def multiply(weight: Floats, out: Floats) -> None:
            step = out.strides[0] // out.itemsize
            reach = (tokens - 1) * step + len(weight) if tokens else 0
            flat = as_strided(out, (reach,), (out.itemsize,))
            compiled.product(packed, tokens, _flat(weight), *weight.shape, flat, step)

        return multiply

    def __str__(self) -> str:
        """Return how products are made, as a calibrated file says it."""
        return "bfloat16, summed in float32" if self.compiled else "float32"


FLOAT32 = Products()


def products_for(type: GGMLType | None = None) -> Products:
    """Return how a file of this type, by its default, is calibrated here."""
    return FLOAT32 if type in EXACT else Products(compiled_products())


def _flat(array: Floats) -> Floats:
    """The numbers as compiled kernels take them: they are compiled for each kind of array anew."""
    flat = np.ascontiguousarray(array).reshape(-1).view()
    flat.flags.writeable = False
    return flat
