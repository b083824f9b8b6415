"""A file that ggml's own reader refuses is refused here too, whatever was done to it."""

from __future__ import annotations

import ctypes
import functools
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.gguf_file.values import pack_string

NUMBERS = (0, 1, 2, 3, 4, 7, 16, 31, 32, 33, 63, 64, 100, 2**16, 2**31, 2**32 - 1, 2**40, 2**62,
           2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)  # fmt: skip


class Params(ctypes.Structure):
    """``struct gguf_init_params`` of ggml/include/gguf.h, llama.cpp commit 0c1e57098."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


@functools.cache
def ggml() -> ctypes.CDLL:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        pytest.skip("llama-cpp-python brings no shared ggml library")
    library = ctypes.CDLL(str(path))
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
    library.gguf_free.argtypes = [ctypes.c_void_p]
    return library


def ggml_accepts(path: Path) -> bool:
    context = ggml().gguf_init_from_file(str(path).encode(), Params(True, None))
    if context:
        ggml().gguf_free(context)
    return bool(context)


def we_accept(path: Path) -> bool:
    try:
        GGUFFile.open(path)
    except GGUFError:
        return False
    return True


@dataclass
class Parts:
    """A GGUF file in pieces that can be changed: keys and tensors as their fields."""

    keys: list[list[object]] = field(default_factory=list)  # name, type, bytes of the value
    tensors: list[list[object]] = field(default_factory=list)  # name, dims, type, offset
    version: int = 3
    counts: tuple[int, int] = (0, 0)  # added to the true ones
    data: bytes = bytes(512)

    def to_bytes(self) -> bytes:
        counts = [len(self.tensors) + self.counts[0], len(self.keys) + self.counts[1]]
        head = struct.pack("<IQQ", self.version, *(n % 2**64 for n in counts))
        keys = b"".join(pack_string(n) + struct.pack("<I", t) + v for n, t, v in self.keys)
        tensors = b"".join(
            pack_string(name)
            + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type, offset % 2**64)
            for name, dims, type, offset in self.tensors
        )
        header = b"GGUF" + head + keys + tensors
        return header + bytes(-len(header) % 32) + self.data


def sound() -> Parts:
    text = struct.pack("<IQ", 8, 2) + pack_string("a") + pack_string("")
    return Parts(
        [
            ["general.architecture", 8, pack_string("lfm2")],
            ["general.alignment", 4, struct.pack("<I", 32)],
            ["tokens", 9, text],
            ["numbers", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)],
            ["flag", 7, b"\1"],
        ],
        [["a", [8, 3], 0, 0], ["b", [32, 2], 8, 96], ["c", [7], 1, 192], ["d", [2, 2], 30, 224]],
    )


def _number(r: random.Random, near: int = 0) -> int:
    return r.choice([*NUMBERS, near + 1, near - 1, near + 32, near - 32, near + 64]) % 2**64


def _offset(parts: Parts, r: random.Random) -> None:
    tensor = r.choice(parts.tensors)
    tensor[3] = _number(r, int(str(tensor[3])))


def _swap(parts: Parts, r: random.Random) -> None:
    one, other = r.sample(parts.tensors, 2)
    one[3], other[3] = other[3], one[3]


def _order(parts: Parts, r: random.Random) -> None:
    r.shuffle(parts.tensors)


def _dims(parts: Parts, r: random.Random) -> None:
    r.choice(parts.tensors)[1] = [_number(r, 8) for _ in range(r.randrange(6))]


def _type(parts: Parts, r: random.Random) -> None:
    r.choice(parts.tensors)[2] = r.choice([*range(45), 2**31, 2**32 - 1])


def _away(parts: Parts, r: random.Random) -> None:
    parts.tensors.remove(r.choice(parts.tensors))


def _name(parts: Parts, r: random.Random) -> None:
    names = ["", "a", "b", "x" * 63, "x" * 64, "é" * 32, "a\0b", "\udcff"]
    r.choice([*parts.tensors, *parts.keys])[0] = r.choice(names)


def _key(parts: Parts, r: random.Random) -> None:
    r.choice(parts.keys)[1] = r.choice([*range(14), 2**31, 2**32 - 1])


def _value(parts: Parts, r: random.Random) -> None:
    values = [
        b"", b"\2", struct.pack("<I", r.choice([0, 1, 3, 64, 2**31])), struct.pack("<Q", 2**62),
        struct.pack("<IQIQ", 9, 1, 4, 0), struct.pack("<IQ", r.randrange(14), _number(r)),
    ]  # fmt: skip
    r.choice(parts.keys)[2] = r.choice(values)


def _again(parts: Parts, r: random.Random) -> None:
    some = r.choice([parts.keys, parts.tensors])
    some.append(list(r.choice(some)))


def _head(parts: Parts, r: random.Random) -> None:
    parts.version = r.choice([0, 1, 2, 3, 3, 4, 2**24])
    parts.counts = r.choice([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2**63, 0), (0, 2**62)])


def _cut(parts: Parts, r: random.Random) -> None:
    parts.data = parts.data[: r.choice([0, 1, 200, 231, 232, 256])]


CHANGES: list[Callable[[Parts, random.Random], None]] = [
    _offset, _offset, _swap, _order, _dims, _type, _away, _name, _key, _value, _again, _head, _cut,
]  # fmt: skip


def test_the_sound_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(sound().to_bytes())
    assert ggml_accepts(path)
    assert we_accept(path)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**64 - 1))
@example(0)
def test_what_ggml_refuses_is_refused(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    r = random.Random(seed)
    parts = sound()
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        if parts.tensors:
            r.choice(CHANGES)(parts, r) if len(parts.tensors) > 1 else _type(parts, r)
    data = bytearray(parts.to_bytes())
    if r.random() < 0.1:
        data[r.randrange(len(data))] = r.randrange(256)
    path = tmp_path_factory.getbasetemp() / "agreement.gguf"
    path.write_bytes(data)
    assert ggml_accepts(path) or not we_accept(path)
