"""Laying out a GGUF file before any weight is read, and filling it in any order.

The file gets its name only when it is complete (:mod:`lfm2gguf.storage.output`), so nobody ever
sees half a model.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfm2gguf.errors import GGUFError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file.reader import MAGIC
from lfm2gguf.gguf_file.values import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    UNSTORABLE,
    Metadata,
    Value,
    pack_string,
)
from lfm2gguf.storage import create, output_errors

VERSION = 3


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written; ``shape`` is in NumPy's order."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.type.row_bytes(self.shape[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True)
class Layout:
    """A whole file, decided: its header, and where in it each tensor goes."""

    header: bytes
    offsets: tuple[int, ...]  # bytes from the start of the file, one for each tensor
    size: int

    @contextlib.contextmanager
    def create(self, target: Path, *, overwrite: bool = False) -> Iterator[Path]:
        """Make the file, header written and its room reserved, and yield its temporary path.

        On leaving it gets the name ``target``; after an exception it is removed.

        Raises:
            OutputError: the target exists, the folder cannot be written, or the disk is full.

        """
        with create(target, overwrite=overwrite) as partial:
            with output_errors(target):
                self._reserve(partial)
            yield partial

    def _reserve(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.write(self.header)
            file.truncate(self.size)
            file.flush()
            _allocate(file.fileno(), self.size)


def lay_out(metadata: Metadata, tensors: Sequence[TensorSpec]) -> Layout:
    """Compute the header and every offset, in the order in which the tensors are given.

    Tensors are aligned to what ``general.alignment`` says, where the metadata has it.

    Raises:
        GGUFError: a metadata value cannot be stored in its type.

    """
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT).value
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts.append(_pair(key, value))
    offset, offsets = 0, []
    for tensor in tensors:
        dims = tensor.shape[::-1]
        parts += [pack_string(tensor.name), struct.pack(f"<I{len(dims)}Q", len(dims), *dims)]
        parts.append(struct.pack("<IQ", tensor.type.id, offset))
        offsets.append(offset)
        offset += _pad(tensor.nbytes, alignment)
    header = b"".join(parts)
    header += bytes(_pad(len(header), alignment) - len(header))
    start = len(header)
    return Layout(header, tuple(start + offset for offset in offsets), start + offset)


def _pair(key: str, value: Value) -> bytes:
    try:
        return pack_string(key) + struct.pack("<I", value.type.id) + value.to_bytes()
    except UNSTORABLE as error:
        raise GGUFError(
            f"the metadata key {key!r} cannot be stored as {value.type.name} ({error})"
        ) from error


def _allocate(descriptor: int, size: int) -> None:
    """Take the room on the disk where the system can: a full disk is better found now."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _pad(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment
