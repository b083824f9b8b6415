"""Metadata values: what a key of a GGUF file holds, and how it is written as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class ValueType(Enum):
    """A metadata type: its id, and its :mod:`struct` code where it has a fixed size."""

    UINT8 = (0, "B")
    INT8 = (1, "b")
    UINT16 = (2, "H")
    INT16 = (3, "h")
    UINT32 = (4, "I")
    INT32 = (5, "i")
    FLOAT32 = (6, "f")
    BOOL = (7, "?")
    STRING = (8, "")
    ARRAY = (9, "")
    UINT64 = (10, "Q")
    INT64 = (11, "q")
    FLOAT64 = (12, "d")

    def __init__(self, id: int, code: str) -> None:
        self.id = id
        self.code = code

    def __repr__(self) -> str:
        """Return the name alone: the numbers are the format's."""
        return f"{type(self).__name__}.{self.name}"


# What packing a value raises that its type does not hold.
UNSTORABLE = (struct.error, TypeError, ValueError, AttributeError, OverflowError)
VALUE_TYPE_BY_ID = {type.id: type for type in ValueType}


@dataclass(frozen=True)
class Value:
    """A metadata value with its type; ``item_type`` is that of an array's items.

    Strings that are not UTF-8 are kept by ``surrogateescape``, so that copying a file
    changes no byte.
    """

    type: ValueType
    value: Any
    item_type: ValueType | None = None

    def to_bytes(self) -> bytes:
        """Return the value as it stands in a file, without the type that precedes it."""
        if self.type is ValueType.ARRAY:
            assert self.item_type is not None
            head = struct.pack("<IQ", self.item_type.id, len(self.value))
            return head + _pack_items(self.item_type, self.value)
        return _pack_items(self.type, [self.value])


Metadata = dict[str, Value]

ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = Value(ValueType.UINT32, 32)


def _pack_items(type: ValueType, items: Iterable[Any]) -> bytes:
    if type is ValueType.STRING:
        return b"".join(pack_string(item) for item in items)
    items = list(items)
    return struct.pack(f"<{len(items)}{type.code}", *items)


def pack_string(text: str) -> bytes:
    """Return a string as it stands in a file: length in bytes (uint64), then UTF-8."""
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data
