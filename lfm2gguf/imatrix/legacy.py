"""llama-imatrix's legacy format (``.dat``): means times the number of chunks.

All integers are int32, little-endian::

    entries, then for each: length of the name, name, chunks, values, values x float32
    chunks of the whole, length of the dataset's name, name   (may be missing)

Source: common/imatrix-loader.cpp, ``common_imatrix_load_legacy``, and tools/imatrix/imatrix.cpp,
``save_imatrix_legacy`` (llama.cpp 0c1e57098).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lfm2gguf.errors import GGUFError
from lfm2gguf.imatrix.matrix import Entry, ImportanceMatrix

MAX_NAME = 4096  # bytes; ggml's own names have 64


def read(path: Path) -> ImportanceMatrix:
    """Read ``path``; every length is checked against the bytes that are there.

    Raises:
        GGUFError: the file is truncated, or not of this format.

    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        entries = {}
        for _ in range(reader.count("number of entries")):
            name, entry = reader.entry()
            entries[name] = entry
        chunks, datasets = reader.trailer()
    return ImportanceMatrix(entries, datasets, chunks, 0, path)


def to_bytes(matrix: ImportanceMatrix) -> bytes:
    """Return the file's content: no entry that no token reached, ones for unseen experts."""
    names = sorted(name for name, entry in matrix.entries.items() if entry.counts.any())
    parts = [struct.pack("<i", len(names))]
    for name in names:
        entry, label = matrix.entries[name], name.encode()
        chunks = _chunks(matrix, entry)
        values = (entry.values * np.float32(chunks)).astype("<f4")
        parts.append(struct.pack(f"<i{len(label)}sii", len(label), label, chunks, values.size))
        parts.append(values.tobytes())
    dataset = (matrix.datasets[-1] if matrix.datasets else "").encode()
    parts.append(struct.pack(f"<ii{len(dataset)}s", matrix.chunk_count, len(dataset), dataset))
    return b"".join(parts)


def _chunks(matrix: ImportanceMatrix, entry: Entry) -> int:
    most = int(entry.counts.max())
    return -(-most // matrix.chunk_size) if matrix.chunk_size else most


class _Reader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = path.stat().st_size

    def take(self, size: int, what: str) -> bytes:
        if size < 0 or size > self.size - self.file.tell():
            raise GGUFError(
                f"{self.path}: neither a GGUF nor a legacy importance matrix, or truncated "
                f"({what} at byte {self.file.tell()})"
            )
        return self.file.read(size)

    def number(self, what: str) -> int:
        value: int = struct.unpack("<i", self.take(4, what))[0]
        return value

    def count(self, what: str) -> int:
        """Read a number of at least one."""
        value = self.number(what)
        if value < 1:
            raise GGUFError(f"{self.path}: the {what} is {value}; compute the matrix again")
        return value

    def entry(self) -> tuple[str, Entry]:
        length = self.number("length of a name")
        label = self.take(length if length <= MAX_NAME else -1, "a name")
        name = label.split(b"\0")[0].decode("utf-8", "replace")
        chunks = self.number(f"chunks of {name}")
        values = self.count(f"number of values of {name}")
        sums = np.frombuffer(self.take(4 * values, f"values of {name}"), "<f4").astype(np.float32)
        # A matrix over no chunk holds the means themselves.
        return name, Entry(sums.reshape(1, -1), np.array([max(chunks, 1)], np.int64))

    def trailer(self) -> tuple[int, tuple[str, ...]]:
        if self.file.tell() == self.size:
            return 0, ()
        chunks = self.number("chunks")
        length = self.number("length of the dataset's name")
        name = self.take(length, "the dataset's name") if length > 0 else b""
        return chunks, (name.decode("utf-8", "replace"),) if name else ()
