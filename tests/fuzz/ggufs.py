"""A GGUF file in parts that can be changed and written back, sound or not, and the changes.

Nothing here is shared with the reader under test: the format is that of ggml's docs/gguf.md.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.mutation import NUMBERS, TEXTS, as_bytes, changed_bytes

CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BITS = {0: 8, 1: 8, 2: 16, 3: 16, 4: 32, 5: 32, 10: 64, 11: 64}
STRING, ARRAY, BOOL = 8, 9, 7
WIDTHS = (1, 16, 32, 64, 96, 192, 256)


@dataclass
class Raw:
    """Bytes in place of a value or a text."""

    data: bytes


@dataclass
class Array:
    """An array's items, their type, and how many it says there are."""

    type: int
    items: list[Any]
    count: int | None = None


@dataclass
class Tensor:
    """A tensor's fields; ``n_dims`` is what is written, if not their true number."""

    name: bytes | Raw
    dims: list[int]
    type: int
    offset: int
    n_dims: int | None = None


@dataclass
class File:
    """All of it: keys are lists of name, type and value."""

    keys: list[list[Any]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    data: bytes = b""
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32
    tail: bytes = b""

    @classmethod
    def read(cls, raw: bytes) -> File:
        """Take a sound file apart."""
        at = 4

        def number(code: str) -> Any:
            nonlocal at
            at += struct.calcsize(code)
            return struct.unpack_from("<" + code, raw, at - struct.calcsize(code))[0]

        def text() -> bytes:
            nonlocal at
            n = number("Q")
            at += n
            return raw[at - n : at]

        def value(type: int) -> Any:
            if type == STRING:
                return text()
            if type == ARRAY:
                item, n = number("I"), number("Q")
                return Array(item, [value(item) for _ in range(n)])
            return number(CODES[type])

        file = cls(version=number("I"))
        n_tensors, n_keys = number("Q"), number("Q")
        for _ in range(n_keys):
            key, type = text(), number("I")
            file.keys.append([key, type, value(type)])
        for _ in range(n_tensors):
            name, n = text(), number("I")
            dims = [number("Q") for _ in range(n)]
            file.tensors.append(Tensor(name, dims, number("I"), number("Q")))
        file.data = raw[-(-at // 32) * 32 :]
        return file

    def to_bytes(self) -> bytes:
        """Put it together again."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        out = [b"GGUF", struct.pack("<IQQ", self.version % 2**32, n_tensors, n_keys)]
        for key, type, value in self.keys:
            out += [_text(key), struct.pack("<I", type), _value(type, value)]
        for t in self.tensors:
            n = len(t.dims) if t.n_dims is None else t.n_dims
            dims = [struct.pack("<Q", d % 2**64) for d in t.dims]
            out += [_text(t.name), struct.pack("<I", n), *dims]
            out += [struct.pack("<IQ", t.type, t.offset % 2**64)]
        head = b"".join(out)
        return head + bytes(-len(head) % self.alignment) + self.data + self.tail

    def put(self, key: str, type: int, value: Any) -> None:
        """Set a key."""
        self.keys = [entry for entry in self.keys if entry[0] != key.encode()]
        self.keys.append([key.encode(), type, value])


def _text(text: bytes | Raw) -> bytes:
    return text.data if isinstance(text, Raw) else struct.pack("<Q", len(text)) + text


def _value(type: int, value: Any) -> bytes:
    if isinstance(value, Raw):
        return value.data
    if isinstance(value, Array):
        count = len(value.items) if value.count is None else value.count
        items = b"".join(_value(value.type, item) for item in value.items)
        return struct.pack("<IQ", value.type, count) + items
    return _text(value) if type == STRING else struct.pack("<" + CODES[type], value)


def any_value(type: int, draw: random.Random, depth: int = 0) -> Any:
    """Return a value of a type."""
    if type == STRING:
        texts = [*map(as_bytes, TEXTS), b"\xff\xfe", b"caf\xe9", draw.randbytes(20)]
        return draw.choice(texts)
    if type == ARRAY:
        item = draw.choice([0, 4, 5, 6, STRING, 12] if depth > 3 else [0, 4, 6, STRING, ARRAY])
        n = draw.choice([0, 1, 2, 3] if item == ARRAY else [0, 1, 3, 5, 300])
        return Array(item, [any_value(item, draw, depth + 1) for _ in range(n)])
    if type == BOOL:
        return Raw(bytes([draw.choice([0, 1, 2, 255])]))
    if type in (6, 12):
        some = [0.0, -1.0, 1e-5, 1e38, float("nan"), float("inf"), -float("inf"), 1e-45]
        return draw.choice(some)
    bits, n = BITS[type], draw.choice(NUMBERS) % 2 ** BITS[type]
    return n - 2**bits if CODES[type].islower() and n >= 2 ** (bits - 1) else n


def any_typed(draw: random.Random) -> tuple[int, Any]:
    """Return a type and a value of it."""
    type = draw.choice([*CODES, STRING, STRING, ARRAY, ARRAY])
    return type, any_value(type, draw)


def shown(name: bytes | Raw) -> str:
    """Return a name as a label."""
    return "?" if isinstance(name, Raw) else name.decode("utf-8", "replace")[:60]


def changed(file: File, draw: random.Random) -> str:
    """Change one thing of the structure; return what."""
    change = draw.choice(CHANGES)
    try:
        return f"{change.__name__.lstrip('_')} {change(file, draw) or ''}".strip()
    except (IndexError, ValueError, TypeError, AttributeError):  # two that do not go together
        return change.__name__.lstrip("_")


def _own_value(file: File, draw: random.Random) -> str:
    entry = draw.choice(file.keys)
    entry[1], entry[2] = any_typed(draw)
    return shown(entry[0])


def _number(file: File, draw: random.Random) -> str:
    entry = draw.choice([e for e in file.keys if e[1] in BITS])
    entry[2] = any_value(entry[1], draw)
    return shown(entry[0])


def _key(file: File, draw: random.Random) -> None:
    entry, kind = draw.choice(file.keys), draw.randrange(4)
    if kind == 0:
        file.keys.remove(entry)
    elif kind == 1:
        file.keys.append(list(entry))
    elif kind == 2:
        file.keys.append([as_bytes(draw.choice(TEXTS)), *any_typed(draw)])
    else:
        entry[0] = Raw(struct.pack("<Q", draw.choice(NUMBERS)) + entry[0])


def _key_type(file: File, draw: random.Random) -> None:
    entry = draw.choice(file.keys)
    entry[1] = draw.choice([*range(14), 99, 2**31, 2**32 - 1])
    known = entry[1] in CODES or entry[1] in (STRING, ARRAY)
    entry[2] = any_value(entry[1], draw) if known else Raw(bytes(8))


def _array(file: File, draw: random.Random) -> str:
    entry = draw.choice([e for e in file.keys if isinstance(e[2], Array)])
    array, kind = entry[2], draw.randrange(6)
    if kind == 0:
        array.count = draw.choice(NUMBERS)
    elif kind == 1:
        array.type = draw.choice([*CODES, STRING, ARRAY, 99])
        array.items = [Raw(bytes(4)) for _ in range(draw.randrange(4))]
    elif kind == 2:
        del array.items[draw.randrange(len(array.items)) :]
    elif kind == 3:
        array.items += array.items[-1:] * draw.choice([1, 100])
    elif kind == 4:
        array.items[draw.randrange(len(array.items))] = draw.choice(array.items)
    else:
        array.items[draw.randrange(len(array.items))] = any_value(array.type, draw)
    return shown(entry[0])


def _counts(file: File, draw: random.Random) -> None:
    if draw.random() < 0.5:
        file.n_tensors = draw.choice([*NUMBERS, len(file.tensors) + 1, len(file.tensors) - 1])
    else:
        file.n_keys = draw.choice([*NUMBERS, len(file.keys) + 1, len(file.keys) - 1])


def _dims(file: File, draw: random.Random) -> None:
    t = draw.choice(file.tensors)
    t.dims = draw.choice([
        [], [1], [draw.choice(NUMBERS)], [draw.choice(NUMBERS) for _ in range(draw.randrange(6))],
        t.dims[::-1], [*t.dims, 1], [2**32, 2**32], [*t.dims, 0], [t.dims[0], 1, *t.dims[1:]],
        [2 * d for d in t.dims], [max(1, d // 2) for d in t.dims],
    ])  # fmt: skip


def _all_dims(file: File, draw: random.Random) -> None:
    for t in file.tensors:
        if draw.random() < 0.3:
            t.dims = [draw.choice(WIDTHS) for _ in t.dims]


def _n_dims(file: File, draw: random.Random) -> None:
    draw.choice(file.tensors).n_dims = draw.choice([0, 1, 2, 4, 5, 9, 2**31, 2**32 - 1])


def _tensor_type(file: File, draw: random.Random) -> None:
    draw.choice(file.tensors).type = draw.choice([*range(45), 99, 2**31, 2**32 - 1])


def _offset(file: File, draw: random.Random) -> None:
    t = draw.choice(file.tensors)
    near = [t.offset + step for step in (1, 2, 4, 16, 32, -32)]
    t.offset = draw.choice([*NUMBERS, *near, -1, -32, len(file.data), len(file.data) - 2])


def _overlap(file: File, draw: random.Random) -> None:
    for t in file.tensors:
        t.offset = 0


def _swapped(file: File, draw: random.Random) -> None:
    a, b = draw.sample(file.tensors, 2)
    a.offset, b.offset = b.offset, a.offset


def _tensor_name(file: File, draw: random.Random) -> None:
    names = [
        "token_embd.weight",
        "output.weight",
        "blk.-1.attn_v.weight",
        "rope_freqs.weight",
        "blk.99999999999.ffn_down.weight",
        "blk.0.shortconv.conv.weight",
        "x" * 63,
        "x" * 64,
    ]
    draw.choice(file.tensors).name = as_bytes(draw.choice([*names, *TEXTS]))


def _tensor(file: File, draw: random.Random) -> None:
    t = draw.choice(file.tensors)
    if draw.random() < 0.5:
        file.tensors.remove(t)
    else:
        file.tensors.append(Tensor(t.name, list(t.dims), t.type, t.offset))


def _alignment(file: File, draw: random.Random) -> None:
    n = draw.choice([0, 1, 2, 3, 4, 8, 16, 31, 33, 64, 4096, 2**20, 2**30, 2**31, 2**32 - 1])
    type = draw.choice([4, 4, 4, 5, 10, 6])
    file.put("general.alignment", type, float(n) if type == 6 else n % 2**31 if type == 5 else n)
    file.alignment = n if 0 < n <= 4096 else 32


def _version(file: File, draw: random.Random) -> None:
    file.version = draw.choice([0, 1, 2, 3, 4, 0x03000000, 0x02000000, 2**31, 2**32 - 1])


def _weights(file: File, draw: random.Random) -> None:
    data = bytearray(file.data)
    bad = [b"\xff" * 4, b"\x80\x7f\x80\x7f", b"\x00\x7c\x00\x7c", b"\xc0\x7f\xc0\x7f"]
    for _ in range(draw.choice([1, 10, 1000])):
        at = draw.randrange(len(data) - 4)
        data[at : at + 4] = draw.choice([*bad, draw.randbytes(4)])
    file.data = bytes(data)


def _length(file: File, draw: random.Random) -> None:
    if draw.random() < 0.6:
        file.data = file.data[: draw.randrange(len(file.data))]
    else:
        file.tail = draw.randbytes(draw.choice([1, 31, 32, 4096]))


def _split(file: File, draw: random.Random) -> None:
    for key in ("no", "count", "tensors.count"):
        if draw.random() < 0.8:
            file.put(f"split.{key}", 10, draw.choice(NUMBERS))


CHANGES = (
    _own_value, _number, _key, _key, _key_type, _array, _counts, _dims, _all_dims, _n_dims,
    _tensor_type, _offset, _offset, _overlap, _swapped, _tensor_name, _tensor, _alignment,
    _version, _weights, _length, _split,
)  # fmt: skip


def hostile(raw: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Return what was done to a file, and its bytes."""
    kind = draw.choice(["bytes", "random", *["structure"] * 6])
    if kind == "bytes":
        window = draw.choice([64, 2000, 20_000, len(raw)])
        return kind, changed_bytes(raw, draw, window)
    if kind == "random":
        return kind, b"GGUF\3\0\0\0" + draw.randbytes(draw.choice([0, 8, 16, 64, 500]))
    file = File.read(raw)
    labels = [changed(file, draw) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
    return written(labels, file, raw, draw)


def written(labels: list[str], file: File, raw: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Return the labels as one and the file's bytes, or others where it cannot be put together."""
    try:
        return " + ".join(labels), file.to_bytes()
    except (struct.error, TypeError, AttributeError):
        return "bytes", changed_bytes(raw, draw, 2000)
