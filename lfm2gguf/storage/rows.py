"""Rows of a matrix in a file: mapped, cut into tiles, widened to float32.

The one table of what numbers are stored as: :data:`SAFETENSORS` by the names of safetensors'
headers, :data:`GGML` by ggml's types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.errors import TensorError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize

TILE_WEIGHTS = 1 << 18  # a megabyte of float32


@dataclass(frozen=True)
class DType:
    """How numbers are stored: in blocks of ``block_size`` numbers and ``type_size`` bytes.

    ``type`` is the ggml type with the same bytes, so that rows can be copied; None where ggml
    has no such type. ``widen(rows, shape=...)`` makes float32 of stored rows, exactly; None
    where lfm2gguf cannot read these numbers.
    """

    name: str
    type_size: int
    block_size: int = 1
    type: GGMLType | None = None
    widen: Callable[..., NDArray[np.float32]] | None = None

    def row_bytes(self, n: int) -> int:
        """Return the bytes of a row of ``n`` numbers, which must be whole blocks."""
        return n // self.block_size * self.type_size


def _ggml(type: GGMLType) -> DType:
    widen = partial(dequantize, type=type) if type in CODECS else None
    return DType(type.name, type.type_size, type.block_size, type, widen)


GGML = {type: _ggml(type) for type in GGMLType}
SAFETENSORS = {
    "BF16": GGML[GGMLType.BF16],
    "F16": GGML[GGMLType.F16],
    "F32": GGML[GGMLType.F32],
    # Known by their size only: tensors that are left out may hold them.
    **{name: DType(name, 1) for name in ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0")},
    **{name: DType(name, 2) for name in ("U16", "I16")},
    **{name: DType(name, 4) for name in ("U32", "I32")},
    **{name: DType(name, 8) for name in ("U64", "I64", "F64")},
}


@dataclass(frozen=True)
class StoredRows:
    """A matrix of ``shape`` (rows, numbers in a row) that begins at byte ``offset`` of a file."""

    path: Path
    offset: int
    dtype: DType
    shape: tuple[int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.row_bytes(self.shape[1])

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Map rows ``start:stop`` as stored, uint8 of shape (rows, row bytes).

        They are mapped, not read: they count towards memory only while the array lives.

        Raises:
            TensorError: the file is gone, or ends before these rows.

        """
        shape = ((self.shape[0] if stop is None else stop) - start, self.row_bytes)
        if 0 in shape:
            return np.zeros(shape, np.uint8)
        try:
            return np.memmap(self.path, np.uint8, "r", self.offset + start * shape[1], shape)
        except (OSError, ValueError) as error:  # ValueError: the file ends earlier
            raise TensorError(
                f"{self.path}: cannot be read any more ({error}); "
                "it was changed or removed meanwhile, start again"
            ) from error

    def widened(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows ``start:stop`` as float32 of shape (rows, numbers in a row), exactly.

        Raises:
            TensorError: as :meth:`rows`.

        """
        assert self.dtype.widen is not None, self.dtype.name
        rows = self.rows(start, stop)
        return self.dtype.widen(rows, shape=(len(rows), self.shape[1]))

    def spans(
        self, start: int = 0, stop: int | None = None, weights: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Cut rows ``start:stop`` into runs of about so many weights, at least a row each.

        ``weights`` is :data:`TILE_WEIGHTS` by default.
        """
        stop = self.shape[0] if stop is None else stop
        step = max(1, (weights or TILE_WEIGHTS) // max(1, self.shape[1]))
        return ((row, min(row + step, stop)) for row in range(start, stop, step))

    def tiles(
        self, start: int = 0, stop: int | None = None, weights: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield :meth:`rows` a tile at a time with its first row; each mapped while it is used."""
        return ((first, self.rows(first, last)) for first, last in self.spans(start, stop, weights))
