"""Damaged and hostile GGUF files: a GGUFError or a file that is sound, and no memory spent."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import GGUFError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, TensorSpec, Value, ValueType, lay_out
from tests.gguf_file.samples import METADATA, write

MEMORY = 20 << 20  # bytes that reading a file of a few kB may take
U64 = struct.Struct("<Q")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, int]:
    """A file, its bytes, and the length of its header."""
    path = tmp_path_factory.mktemp("gguf") / "f.gguf"
    layout, _ = write(path)
    return path.with_name("damaged.gguf"), path.read_bytes(), len(layout.header)


def open_or_refuse(path: Path, data: bytes) -> bool:
    """Whether the file could be read; only a GGUFError of one line is a refusal."""
    path.write_bytes(data)
    refused = ""
    tracemalloc.start()
    try:
        file = GGUFFile.open(path)
        for name in file.tensors:
            assert file.data(name).nbytes == file.tensors[name].nbytes
    except GGUFError as error:
        refused = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY
    assert "\n" not in refused
    return not refused


def test_every_truncation_is_refused(sound: tuple[Path, bytes, int]) -> None:
    path, data, header = sound
    for n in [*range(header), *range(header, len(data) - 32, 97)]:
        assert not open_or_refuse(path, data[:n]), n


places = st.floats(0, 1, exclude_max=True)
changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
numbers = st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
fuzz = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@fuzz
@given(changes)
def test_changed_bytes(sound: tuple[Path, bytes, int], changes: list[tuple[float, int]]) -> None:
    path, data, header = sound
    damaged = bytearray(data)
    for place, byte in changes:
        damaged[int(place * header)] = byte
    open_or_refuse(path, bytes(damaged))


@pytest.mark.slow
@fuzz
@given(places, numbers)
def test_changed_numbers(sound: tuple[Path, bytes, int], place: float, number: int) -> None:
    path, data, header = sound
    at = int(place * (header - 8))
    open_or_refuse(path, data[:at] + U64.pack(number) + data[at + 8 :])


@fuzz
@given(st.binary(max_size=200))
def test_anything_after_the_magic(sound: tuple[Path, bytes, int], rest: bytes) -> None:
    open_or_refuse(sound[0], b"GGUF" + struct.pack("<I", 3) + rest)


def header(n_tensors: int, n_pairs: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_pairs) + rest


def pair(key: bytes, type: int, value: bytes) -> bytes:
    return U64.pack(len(key)) + key + struct.pack("<I", type) + value


def tensor(dims: list[int], type: int = 0, offset: int = 0, name: bytes = b"t") -> bytes:
    body = struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", type, offset)
    return U64.pack(len(name)) + name + body


NESTED = struct.pack("<IQ", 9, 1) * 5000
HOSTILE = {
    "empty": (b"", "not a GGUF file"),
    "another format": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 is not supported"),
    "more tensors than bytes": (header(2**60, 0), "more than the file has room for"),
    "more keys than bytes": (header(0, 2**60), "more than the file has room for"),
    "long key": (header(0, 1, U64.pack(2**62) + bytes(50)), "truncated or damaged"),
    "long array": (header(0, 1, pair(b"k", 9, struct.pack("<IQ", 0, 2**62))), "room for"),
    "deep arrays": (header(0, 1, pair(b"k", 9, NESTED)), "array of arrays"),
    "unknown value": (header(0, 1, pair(b"k", 77, bytes(8))), "unknown metadata type 77"),
    "key twice": (header(0, 2, 2 * pair(b"k", 0, b"1")), "occurs twice"),
    "alignment": (
        header(0, 1, pair(b"general.alignment", 4, struct.pack("<I", 3))), "not a power of two",
    ),
    "many dimensions": (header(1, 0, tensor([1] * 9)), "9 dimensions"),
    "unknown tensor type": (header(1, 0, tensor([1], 999)), "unknown type 999"),
    "part of a block": (header(1, 0, tensor([100], 12) + bytes(100)), "do not divide"),
    "size that wraps around": (header(1, 0, tensor([2**32, 2**32]) + bytes(64)), "truncated"),
    "offset past the end": (header(1, 0, tensor([1], 0, 2**63) + bytes(64)), "0 is expected"),
    "overlap": (header(2, 0, tensor([9]) + tensor([9], name=b"u") + bytes(99)), "64 is expected"),
    "gap": (header(1, 0, tensor([9], 0, 32) + bytes(99)), "0 is expected"),
    "empty key": (header(0, 1, pair(b"", 0, bytes(9))), "key is empty"),
    "long name": (header(1, 0, tensor([1], name=b"n" * 64) + bytes(64)), "longer than 63"),
    "no weights": (header(1, 0, tensor([0, 2**60]) + bytes(64)), "has no weights"),
    "tensor twice": (header(2, 0, 2 * tensor([1]) + bytes(64)), "occurs twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path: Path, name: str) -> None:
    data, message = HOSTILE[name]
    (tmp_path / "f.gguf").write_bytes(data)
    with pytest.raises(GGUFError, match=message):
        GGUFFile.open(tmp_path / "f.gguf")
    assert not open_or_refuse(tmp_path / "f.gguf", data)


def test_a_folder_or_nothing_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf"):
        with pytest.raises(GGUFError, match="no such file"):
            GGUFFile.open(path)


def test_a_header_longer_than_the_window(tmp_path: Path) -> None:
    tokens = [f"token {i} " * 5 for i in range(40_000)]
    metadata = METADATA | {"tokens": Value(ValueType.ARRAY, tokens, ValueType.STRING)}
    layout = lay_out(metadata, [TensorSpec("t", GGMLType.F32, (1,))])
    assert len(layout.header) > 2 << 20
    with layout.create(tmp_path / "f.gguf"):
        pass
    assert GGUFFile.open(tmp_path / "f.gguf").metadata == metadata
