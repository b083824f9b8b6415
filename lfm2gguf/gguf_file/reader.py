"""Reading GGUF files that may be truncated, damaged or hostile.

Every count and length is checked against the bytes that are there before anything is
allocated, so that a file of a few bytes cannot ask for terabytes, and no damaged file
reaches C code. What ``gguf_init_from_file`` refuses (ggml/src/gguf.cpp, commit 0c1e57098) is
refused here too: a file that llama.cpp cannot open must not look sound.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lfm2gguf.errors import GGUFError
from lfm2gguf.ggml import TYPE_BY_ID, GGMLType
from lfm2gguf.gguf_file.splits import COUNT, NO, TENSORS, siblings
from lfm2gguf.gguf_file.values import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    VALUE_TYPE_BY_ID,
    Metadata,
    Value,
    ValueType,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lfm2gguf.storage import StoredRows

MAGIC = b"GGUF"
LOOKS_LIKE = {  # what stands in a GGUF's place, by its first bytes
    b"": "; it is empty: download or copy it again",
    b"vers": "; it is a Git LFS pointer: run git lfs pull in its folder, or hf download",
    b"<!DO": "; it is a web page: on the Hub a file's own address has /resolve/ and not /blob/",
    b"<htm": "; it is a web page: on the Hub a file's own address has /resolve/ and not /blob/",
    b"PK\x03\x04": "; it is a zip archive, as PyTorch's files are: convert takes safetensors",
    b"lmgg": "; it is of llama.cpp before GGUF: convert the checkpoint again",
    b"tjgg": "; it is of llama.cpp before GGUF: convert the checkpoint again",
}
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS, ggml/include/ggml.h
MAX_NAME = 63  # bytes; GGML_MAX_NAME, with the final zero, is 64
MAX_STRING = MAX_ITEMS = 1 << 30  # GGUF_MAX_STRING_LENGTH, GGUF_MAX_ARRAY_ELEMENTS
SMALLEST_PAIR = 8 + 1 + 4 + 1  # key length, key, type, value
SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8  # name length, name, dimensions, one size, type, offset
HEADER_WINDOW = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in a file; ``shape`` is in NumPy's order (..., rows, columns)."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    file: Path  # of a model in several, the one that it is in

    @property
    def n_rows(self) -> int:
        """Rows: the product of all dimensions but the last."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.type.row_bytes(self.shape[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.n_rows * self.row_bytes

    @property
    def stored(self) -> StoredRows:
        """Its rows in the file."""
        from lfm2gguf.storage import GGML, StoredRows  # with all codecs, which a header needs not

        shape = (self.n_rows, self.shape[-1])
        return StoredRows(self.file, self.offset, GGML[self.type], shape)


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file's metadata and tensors; the weights stay on disk until asked for.

    A model in several files is opened by its first one, and then has the tensors of all.
    """

    path: Path
    version: int
    metadata: Metadata = field(repr=False)
    tensors: dict[str, TensorInfo] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> GGUFFile:
        """Read the header of ``path``.

        Raises:
            GGUFError: the file is missing, not GGUF, truncated or inconsistent.

        """
        first = _open(Path(path))
        count = first.get(COUNT, 1)
        return _joined(first, count) if isinstance(count, int) and count > 1 else first

    @classmethod
    def open_one(cls, path: str | Path) -> GGUFFile:
        """Read the header of ``path`` alone, though it be one file of several.

        Raises:
            GGUFError: the file is missing, not GGUF, truncated or inconsistent.

        """
        return _open(Path(path))

    @property
    def files(self) -> set[Path]:
        """The file, or all files of a model in several."""
        return {self.path, *(info.file for info in self.tensors.values())}

    def __repr__(self) -> str:
        """Return what it is, short."""
        n = sum(math.prod(tensor.shape) for tensor in self.tensors.values())
        return (
            f"GGUFFile({str(self.path)!r}: {self.architecture or 'no architecture'}, {n:,} weights "
            f"in {len(self.tensors)} tensors)"
        )

    @property
    def architecture(self) -> str:
        """The model's architecture, such as ``lfm2``; empty where the file names none."""
        return str(self.get("general.architecture", ""))

    @property
    def has_text(self) -> bool:
        """Whether it has a vocabulary; LFM2-Audio's detokenizer, an LFM2 too, has none."""
        return self.get("tokenizer.ggml.model") != "none"

    def get(self, key: str, default: object = None) -> object:
        """Return the value of a metadata key, or ``default`` where the file lacks it."""
        value = self.metadata.get(key)
        return default if value is None else value.value

    def data(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Read rows ``start:stop`` of a tensor as stored, uint8 of shape (rows, row bytes).

        Raises:
            TensorError: the file was changed or removed meanwhile.

        """
        return self.tensors[name].stored.rows(start, stop)


def _open(path: Path) -> GGUFFile:
    if not path.is_file():
        raise GGUFError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            return _Parser(file, path).parse()
    except OSError as error:
        raise GGUFError(f"{path}: cannot be read ({error.strerror})") from error


def _joined(first: GGUFFile, count: int) -> GGUFFile:
    """Return a model of several files, given its first."""
    paths = siblings(first.path, count)
    if paths is None:
        raise GGUFError(
            f"{first.path}: is one of {count} files of a model, which must be called "
            f"NAME-00001-of-{count:05d}.gguf and so on, as they were made"
        )
    if (number := first.get(NO, 0)) != 0:
        raise GGUFError(
            f"{first.path}: is file {number!r} (counted from 0) of a model's {count}; "
            f"give the first, {paths[0].name}"
        )
    tensors = dict(first.tensors)
    for i, path in enumerate(paths[1:], 1):
        if not path.is_file():
            raise GGUFError(f"{path}: missing; it is one of the {count} files of {first.path.name}")
        file = _open(path)
        if (file.get(NO), file.get(COUNT)) != (i, count):
            raise GGUFError(f"{path}: is not file {i} of {count}, as its name says; copy it again")
        if twice := file.tensors.keys() & tensors.keys():
            raise GGUFError(
                f"{path}: the tensor {min(twice)!r} is in another file of the model too"
            )
        tensors |= file.tensors
    if (expected := first.get(TENSORS, len(tensors))) != len(tensors):
        raise GGUFError(f"{first.path}: its files hold {len(tensors)} tensors, not {expected!r}")
    return replace(first, tensors=tensors)


class _Parser:
    """Walks over a file's header; ``fail`` says where it stopped."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = path.stat().st_size
        self.window, self.window_start, self.position = b"", 0, 0

    def fail(self, what: str) -> GGUFError:
        return GGUFError(f"{self.path}: {what} (at byte {self.position})")

    def take(self, n: int) -> bytes:
        if n > self.size - self.position:
            raise self.fail(
                f"truncated: {n} more bytes expected, {self.size - self.position} there. "
                "Copy or download the file again"
            )
        start = self.position - self.window_start
        if start + n > len(self.window):
            self.file.seek(self.position)
            self.window = self.file.read(max(n, HEADER_WINDOW))
            self.window_start, start = self.position, 0
        self.position += n
        return self.window[start : start + n]

    def number(self, code: str) -> int:
        result: int = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]
        return result

    def string(self) -> str:
        n = self.number("Q")
        if n > MAX_STRING:
            raise self.fail(f"truncated or damaged: a text of {n} bytes, where {MAX_STRING} fit")
        return self.take(n).decode("utf-8", "surrogateescape")

    def strings(self, n: int) -> list[str]:
        """Read so many texts: of a vocabulary's hundred thousand, calls cost more than the reading.

        One that goes on behind the window, or is too long, is left to :meth:`string`.
        """
        found: list[str] = []
        length_at = struct.Struct("<Q").unpack_from
        while len(found) < n:
            found.append(self.string())  # which moves the window on
            found += self.short_strings(n - len(found))
            at, window = self.position - self.window_start, self.window
            while len(found) < n and at + 8 <= len(window):
                [length] = length_at(window, at)
                if length > min(MAX_STRING, len(window) - at - 8):
                    break
                found.append(window[at + 8 : at + 8 + length].decode("utf-8", "surrogateescape"))
                at += 8 + length
            self.position = self.window_start + at
        return found

    def short_strings(self, n: int) -> list[str]:
        """Read up to so many texts that are left in the window, all at once; none where one is odd.

        A length below 256 is a byte and seven zeros, so what stands between such zeros is a text
        and, in one byte, the length of the next. If each is as long as the one before it says,
        then that is where they part: texts that hold zeros, too, or are longer, show by that.
        """
        rest = self.window[self.position - self.window_start :]
        pieces = rest.split(bytes(7), n + 1)[:-1]  # the last may go on behind the window
        lengths = [len(piece) for piece in pieces]
        if lengths != [1, *(piece[-1] + 1 for piece in pieces[:-1] if piece)]:
            return []
        self.position += sum(lengths) + 7 * len(pieces) - 8  # before the length of the next
        return [piece[:-1].decode("utf-8", "surrogateescape") for piece in pieces[1:]]

    def count(self, what: str, smallest: int) -> int:
        n = self.number("Q")
        if n > (self.size - self.position) // smallest:
            raise self.fail(f"damaged: says it has {n} {what}, more than the file has room for")
        return n

    def parse(self) -> GGUFFile:
        magic = self.take(min(4, self.size))
        if magic != MAGIC:
            hint = LOOKS_LIKE.get(magic, "")
            raise GGUFError(
                f"{self.path}: not a GGUF file (it begins with {magic!r}, not {MAGIC!r}){hint}"
            )
        version = self.number("I")
        if version not in (2, 3):
            hint = "big-endian files are not supported" if version >> 16 else "2 and 3 are known"
            raise self.fail(f"GGUF version {version} is not supported: {hint}")
        n_tensors = self.count("tensors", SMALLEST_TENSOR)
        n_pairs = self.count("metadata keys", SMALLEST_PAIR)
        metadata = self.metadata(n_pairs)
        given = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
        alignment = given.value
        if given.type is not ValueType.UINT32 or alignment < 1 or alignment & (alignment - 1):
            raise self.fail(f"{ALIGNMENT} is {alignment!r}, not a power of two as UINT32")
        tensors = [self.tensor() for _ in range(n_tensors)]
        return GGUFFile(self.path, version, metadata, self.place(tensors, alignment))

    def metadata(self, n: int) -> Metadata:
        metadata: Metadata = {}
        for _ in range(n):
            key = self.string()
            if not key:
                raise self.fail("damaged: a metadata key is empty")
            if key in metadata:
                raise self.fail(f"the metadata key {key!r} occurs twice")
            metadata[key] = self.value(self.value_type())
        return metadata

    def value_type(self) -> ValueType:
        id = self.number("I")
        if id not in VALUE_TYPE_BY_ID:
            raise self.fail(f"unknown metadata type {id}")
        return VALUE_TYPE_BY_ID[id]

    def value(self, type: ValueType) -> Value:
        if type is ValueType.STRING:
            return Value(type, self.string())
        if type is not ValueType.ARRAY:
            return Value(type, self.number(type.code))
        item = self.value_type()
        if item is ValueType.ARRAY:
            raise self.fail("an array of arrays, which llama.cpp cannot read")
        # A text is its length, uint64, and its bytes.
        n = self.count("array items", struct.calcsize(item.code) if item.code else 8)
        if n > MAX_ITEMS:
            raise self.fail(f"an array of {n} items, where {MAX_ITEMS} fit")
        if item is ValueType.STRING:
            return Value(type, self.strings(n), item)
        code = f"<{n}{item.code}"
        return Value(type, list(struct.unpack(code, self.take(struct.calcsize(code)))), item)

    def tensor(self) -> TensorInfo:
        name = self.string()
        if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
            raise self.fail(f"tensor {name[:20]!r}...: its name is longer than {MAX_NAME} bytes")
        n_dims = self.number("I")
        if n_dims > MAX_DIMENSIONS:
            raise self.fail(
                f"tensor {name!r} has {n_dims} dimensions, at most {MAX_DIMENSIONS} are known"
            )
        shape = tuple(self.number("Q") for _ in range(n_dims))[::-1] or (1,)
        if 0 in shape:
            raise self.fail(f"damaged: tensor {name!r} of shape {shape} has no weights")
        id = self.number("I")
        if id not in TYPE_BY_ID:
            raise self.fail(f"tensor {name!r} has the unknown type {id}. Update lfm2gguf")
        type = TYPE_BY_ID[id]
        if shape[-1] % type.block_size:
            raise self.fail(
                f"tensor {name!r}: rows of {shape[-1]} do not divide into {type.name} blocks"
            )
        return TensorInfo(name, type, shape, self.number("Q"), self.path)

    def place(self, tensors: list[TensorInfo], alignment: int) -> dict[str, TensorInfo]:
        """Turn offsets into positions in the file, and check that each tensor is there.

        As ggml has it, each begins at the next aligned byte after the one before it.
        """
        placed: dict[str, TensorInfo] = {}
        data = -(-self.position // alignment) * alignment
        expected = 0
        for info in tensors:
            if info.name in placed:
                raise self.fail(f"the tensor {info.name!r} occurs twice")
            if info.offset != expected:
                raise self.fail(
                    f"damaged: tensor {info.name!r} has the offset {info.offset}, where "
                    f"{expected} is expected: it would overlap another or leave a gap. Copy or "
                    "download the file again"
                )
            expected += -(-info.nbytes // alignment) * alignment
            start = data + info.offset
            if start + info.nbytes > self.size:
                raise GGUFError(
                    f"{self.path}: truncated: tensor {info.name!r} ends at byte "
                    f"{start + info.nbytes}, the file at {self.size}. Copy or download it again"
                )
            placed[info.name] = replace(info, offset=start)
        return placed
