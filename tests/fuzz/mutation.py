"""Changes to bytes and to JSON values, with a taste for the absurd."""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Iterator
from typing import Any

NUMBERS = (0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 65, 255, 256, 257, 2**15, 2**16, 2**20, 2**24,
           2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63,
           2**64 - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1e308, 1e-320, 0.5, 3.0, float("inf"), float("nan"), -1.5)
TEXTS = ("", " ", "\x00", "a\x00b", "\n", "\x1b[31m", "\u202e", "é" * 300, "x" * 5000,
         "../../etc/passwd", "/etc/passwd", "C:\\con", "\ud83d", "<|im_end|>", "{{ x }}", "%s%n",
         "-o", "--force", "\ufeff", "NaN", "null", "🙂")  # fmt: skip
NAMES = ("lfm2", "conv", "full_attention", "BF16", "default", "silu", "1", "-1", "0")
DEEP = (100, 900, 3000, 100_000)  # brackets


def as_bytes(text: str) -> bytes:
    """Encode a text that may hold halves of surrogate pairs."""
    return text.encode("utf-8", "surrogatepass")


def changed_bytes(raw: bytes, draw: random.Random, window: int | None = None) -> bytes:
    """Return bytes with a few of the first ``window`` changed, taken away, added or moved."""
    data = bytearray(raw)
    for _ in range(draw.choice([1, 1, 2, 3, 8])):
        end = max(1, min(len(data), window or len(data)))
        at, size = draw.randrange(end), draw.choice([1, 2, 4, 8, 33])
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[at] = draw.randrange(256)
        elif kind == 1 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = draw.randbytes(size)
        elif kind == 4:
            data[at : at + 8] = struct.pack("<Q", draw.choice(NUMBERS))
        else:
            other = draw.randrange(end)
            data[at : at + size] = data[other : other + size]
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data) + 1)]
    return bytes(data)


def any_json(draw: random.Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    some = range(draw.randrange(4)) if depth < 4 else ()
    return draw.choice([
        lambda: None,
        lambda: draw.random() < 0.5,
        lambda: draw.choice(NUMBERS) * draw.choice([1, 1, -1]),
        lambda: draw.choice(FLOATS),
        lambda: draw.choice(TEXTS),
        lambda: draw.choice(NAMES),
        lambda: 10 ** draw.choice([20, 100, 400, 4000]),
        lambda: draw.randrange(-5, 400),
        lambda: [any_json(draw, depth + 1) for _ in some],
        lambda: {draw.choice(TEXTS): any_json(draw, depth + 1) for _ in some},
        lambda: nested(draw.choice(DEEP[:2]), draw),
    ])()  # fmt: skip


def nested(depth: int, draw: random.Random) -> Any:
    """Return a value in so many lists or objects."""
    value: Any = 0
    in_lists = draw.random() < 0.5
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value


def deep_text(draw: random.Random) -> bytes:
    """Return a text of brackets, closed or not."""
    depth, (first, last) = draw.choice(DEEP), draw.choice([("[", "]"), ('{"a":', "}")])
    return (first * depth + draw.choice(["", "0" + last * depth])).encode()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a value but for the ends of long lists and great depths."""
    if path:
        yield path
    if len(path) > 20:
        return
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 12)):
            yield from _places(value[i], (*path, i))


def changed_json(value: Any, draw: random.Random) -> Any:
    """Return a copy with one or a few places changed, taken away, doubled or moved."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            return any_json(draw)
        depth = draw.choice(sorted({len(place) for place in places}))  # shallow as often as deep
        *way, last = draw.choice([place for place in places if len(place) == depth])
        inner = value
        for step in way:
            inner = inner[step]
        _change(inner, last, draw)
    return value


def _change(inner: Any, last: Any, draw: random.Random) -> None:
    kind, old = draw.randrange(8), inner[last]
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, list):
        inner.insert(last, old)
    elif kind == 1:
        inner[str(last) + draw.choice(["", "_", " ", "x"])] = old
    elif kind == 2 and isinstance(old, int) and not isinstance(old, bool):
        near = [old + 1, old - 1, -old, old * 2, old * 2**32, str(old)]
        inner[last] = draw.choice(near)
    elif kind == 3 and isinstance(old, str):
        inner[last] = draw.choice([old + draw.choice(TEXTS), old.upper(), old[:-1], [old]])
    elif kind == 4:
        inner[last] = [old]
    elif kind == 5:
        inner[last] = {"x": old}
    else:
        inner[last] = any_json(draw)


def json_bytes(value: Any, draw: random.Random) -> bytes:
    """Return a value as a JSON text, sometimes damaged."""
    limit, depth = sys.get_int_max_str_digits(), sys.getrecursionlimit()
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(20_000)
    try:
        data = as_bytes(json.dumps(value, ensure_ascii=draw.random() < 0.8))
    finally:
        sys.set_int_max_str_digits(limit)
        sys.setrecursionlimit(depth)
    chance = draw.random()
    if chance < 0.06:
        return changed_bytes(data, draw)
    return deep_text(draw) if chance < 0.09 else data
