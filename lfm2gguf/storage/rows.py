"""Rows of a matrix in a file: read, cut into tiles, widened to float32.

They are read and not mapped: where a mapped file is cut short, the next look at it ends the
process (SIGBUS). Reading tiles is faster, too: it needs no page fault for every 4 KiB.

The one table of what numbers are stored as: :data:`SAFETENSORS` by the names of safetensors'
headers, :data:`GGML` by ggml's types.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize
from lfm2gguf.storage.unchanged import gone

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


def _byte(name: str, values: NDArray[np.float32]) -> DType:
    """Return a type of one byte that stands for one of 256 values."""

    def widen(rows: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
        return values[rows].reshape(shape)

    return DType(name, 1, widen=widen)


def _e4m3() -> NDArray[np.float32]:
    """Return the values of 4 exponent and 3 mantissa bits, without infinities (OCP's E4M3)."""
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent, normal, np.ldexp(mantissa / 8, -6))
    values[(bits & 127) == 127] = np.nan
    return np.where(bits < 128, values, -values).astype(np.float32)


def _e5m2() -> NDArray[np.float32]:
    """Return the values of 5 exponent and 2 mantissa bits: the upper byte of a float16."""
    halves: NDArray[np.float16] = (np.arange(256, dtype=np.uint16) << 8).view(np.float16)
    return halves.astype(np.float32)


def _e8m0() -> NDArray[np.float32]:
    """Return the powers of two from -127 to 127 that scales are (OCP's microscaling formats)."""
    values = np.ldexp(1.0, np.arange(256) - 127)
    values[255] = np.nan
    return values.astype(np.float32)


GGML = {type: _ggml(type) for type in GGMLType}
SAFETENSORS = {
    "BF16": GGML[GGMLType.BF16],
    "F16": GGML[GGMLType.F16],
    "F32": GGML[GGMLType.F32],
    "F8_E4M3": _byte("F8_E4M3", _e4m3()),
    "F8_E5M2": _byte("F8_E5M2", _e5m2()),
    "F8_E8M0": _byte("F8_E8M0", _e8m0()),
    # Known by their size only: tensors that are left out may hold them.
    **{name: DType(name, 1) for name in ("BOOL", "U8", "I8")},
    **{name: DType(name, 2) for name in ("U16", "I16")},
    **{name: DType(name, 4) for name in ("U32", "I32")},
    **{name: DType(name, 8) for name in ("U64", "I64", "F64")},
}


@dataclass(frozen=True)
class Scales:
    """What numbers are multiplied by: one for each block of ``block`` (rows, numbers in a row).

    Blocks begin anew with every ``period`` rows: those are one matrix of a stack.
    """

    values: StoredRows
    block: tuple[int, int]
    period: int

    def of(self, start: int, stop: int, n: int) -> NDArray[np.float32]:
        """Return the scale of each number of rows ``start:stop``, float32 (rows, ``n``)."""
        high, wide = self.block
        matrix, row = np.divmod(np.arange(start, stop), self.period)
        index = matrix * -(-self.period // high) + row // high
        if not len(index):
            return np.empty((0, n), np.float32)
        first = int(index[0])
        rows = self.values.widened(first, int(index[-1]) + 1)[index - first]
        return np.repeat(rows, wide, axis=1)[:, :n]


@dataclass(frozen=True)
class StoredRows:
    """A matrix of ``shape`` (rows, numbers in a row) that begins at byte ``offset`` of a file."""

    path: Path
    offset: int
    dtype: DType
    shape: tuple[int, int]
    scales: Scales | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.row_bytes(self.shape[1])

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Read rows ``start:stop`` as stored, uint8 of shape (rows, row bytes), not writable.

        Raises:
            TensorError: the file is gone, or ends before these rows.

        """
        shape = ((self.shape[0] if stop is None else stop) - start, self.row_bytes)
        rows = np.empty(shape, np.uint8)
        left = rows.reshape(-1).data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + start * shape[1])
                while left and (n := file.readinto(left)):
                    left = left[n:]
        except OSError as error:
            raise gone(self.path, error.strerror or str(error)) from error
        if left:
            raise gone(self.path, f"{len(left)} of {rows.nbytes} bytes are missing")
        rows.flags.writeable = False
        return rows

    def expect(self, start: int, stop: int) -> None:
        """Have the system begin to read rows that will soon be asked for, where it can."""
        if hasattr(os, "posix_fadvise"):
            at, size = self.offset + start * self.row_bytes, (stop - start) * self.row_bytes
            with contextlib.suppress(OSError), self.path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), at, size, os.POSIX_FADV_WILLNEED)

    def widened(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows ``start:stop`` as float32 of shape (rows, numbers in a row).

        That is exact, but for a rounding where there are scales.

        Raises:
            TensorError: as :meth:`rows`.

        """
        return self.numbers(self.rows(start, stop), start)

    def numbers(self, stored: NDArray[np.uint8], start: int) -> NDArray[np.float32]:
        """Return :meth:`widened` for rows from ``start`` on that are given as they are stored."""
        assert self.dtype.widen is not None, self.dtype.name
        n = self.shape[1]
        numbers = self.dtype.widen(stored, shape=(len(stored), n))
        return numbers * self.scales.of(start, start + len(stored), n) if self.scales else numbers

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
        """Yield :meth:`rows` a tile at a time with its first row."""
        return ((first, self.rows(first, last)) for first, last in self.spans(start, stop, weights))
