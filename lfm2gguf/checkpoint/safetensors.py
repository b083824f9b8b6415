"""Reading safetensors files by their bytes.

The format is an 8-byte little-endian length, a JSON header of that length, and the tensors
without gaps (https://huggingface.co/docs/safetensors, "Format"). The safetensors package is
not used: its NumPy front end has no bfloat16 and gives no offsets, and the offsets are what
allows a range of rows to be read by itself.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint.pointers import refuse_pointer
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.json_text import parse_json
from lfm2gguf.storage import SAFETENSORS, Scales, StoredRows

MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation
ROWS = 4096  # compared at a time


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: ``offset`` and ``nbytes`` are in bytes of ``file``."""

    name: str
    dtype: str  # as safetensors spells it: BF16, F16, F32, ...
    shape: tuple[int, ...]
    file: Path
    offset: int
    flipped: bool = False  # stored transposed: only small matrices are
    scale: TensorInfo | None = None  # of a matrix in FP8, or a stack: one for each block of it
    block: tuple[int, int] = (1, 1)

    @property
    def nbytes(self) -> int:
        """Count the bytes of the whole tensor."""
        return math.prod(self.shape) * SAFETENSORS[self.dtype].type_size

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return rows ``start:stop`` of the first axis, widened to float32 (exactly).

        Only these rows are read, so memory is bounded by what is asked for.

        Raises:
            UnsupportedError: the tensor does not hold BF16, F16 or F32.
            TensorError: the file was changed or removed meanwhile.

        """
        if self.flipped:
            whole = replace(self, shape=self.shape[::-1], flipped=False).read()
            return np.ascontiguousarray(whole.T[start:stop])
        n, *inner = self.shape
        stop = n if stop is None else stop
        width, high = (inner[-1] if inner else 1), math.prod(inner[:-1])
        weights = self.stored(n * high, width).widened(start * high, stop * high)
        return weights.reshape(stop - start, *inner)

    def stored(self, n_rows: int, n_per_row: int) -> StoredRows:
        """Return the tensor as rows of a matrix of this shape.

        Raises:
            UnsupportedError: the tensor does not hold BF16, F16, F32, or FP8 in this shape.

        """
        assert not self.flipped, self.name
        dtype = SAFETENSORS[self.dtype]
        if dtype.widen is None:
            raise UnsupportedError(
                f"{self.file}: the tensor {self.name!r} holds {self.dtype}; only BF16, F16 and "
                "F32 weights can be converted. Save the model in bfloat16"
            )
        scales = None
        if self.scale is not None:
            if n_per_row != self.shape[-1]:
                raise UnsupportedError(
                    f"{self.file}: the tensor {self.name!r} is in FP8 with scales, and takes "
                    "another shape in a GGUF; save the model in bfloat16"
                )
            values = self.scale.stored(math.prod(self.scale.shape[:-1]), self.scale.shape[-1])
            # One scale may be the whole stack's, whose rows are then those of one matrix.
            period = n_rows // math.prod(self.scale.shape[:-2])
            scales = Scales(values, self.block, period)
        return StoredRows(self.file, self.offset, dtype, (n_rows, n_per_row), scales)

    def equals(self, other: TensorInfo) -> bool:
        """Say whether another has the same shape and values, if not dtype; scalars never do.

        Raises:
            UnsupportedError: one of them does not hold BF16, F16 or F32.

        """
        if self.shape != other.shape or not self.shape:
            return False
        spans = [(i, min(i + ROWS, self.shape[0])) for i in range(0, self.shape[0], ROWS)]
        return all(np.array_equal(self.read(*span), other.read(*span)) for span in spans)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read the tensors of one file, every offset checked against the file's size.

    Raises:
        CheckpointError: the file is truncated or its header is damaged.

    """
    refuse_pointer(path)
    try:
        size, raw = path.stat().st_size, _raw_header(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check that it may be"
        ) from error
    data = 8 + len(raw)
    try:
        header = parse_json(raw.decode("utf-8"), pairs=_without_repeats)
        header.pop("__metadata__", None)
        infos = [_info(path, name, entry, data) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its header cannot be read ({error})") from error
    _check_layout(path, infos, data, size)
    return {info.name: info for info in infos}


def _raw_header(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if len(prefix) < 8 or length > size - 8:
            raise _damaged(path, f"truncated: its header should have {length} bytes of {size}")
        if length > MAX_HEADER:
            raise _damaged(path, f"its header of {length} bytes is longer than {MAX_HEADER}")
        return file.read(length)


def _info(path: Path, name: str, entry: dict[str, Any], data: int) -> TensorInfo:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in SAFETENSORS:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or an offset that is not a natural number")
    info = TensorInfo(name, dtype, shape, path, data + begin)
    if info.nbytes != end - begin:
        raise ValueError(f"tensor {name!r} needs {info.nbytes} bytes and is given {end - begin}")
    return info


def _check_layout(path: Path, infos: list[TensorInfo], data: int, size: int) -> None:
    """Check that tensors follow one another without gap or overlap and end with the file."""
    position = data
    for info in sorted(infos, key=lambda info: (info.offset, info.nbytes)):
        if info.offset != position:
            problem = "overlaps another" if info.offset < position else "leaves a gap before it"
            raise _damaged(path, f"tensor {info.name!r} {problem} (offset {info.offset - data})")
        position += info.nbytes
        if position > size:
            raise _damaged(
                path, f"truncated: tensor {info.name!r} ends at byte {position} of {size}"
            )
    if position != size:
        raise _damaged(path, f"{size - position} bytes at its end belong to no tensor")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}. Download or save the file again")
