"""Models in several files, as llama-gguf-split cuts them (tools/gguf-split, commit 0c1e57098).

The first file has the metadata; each has some whole tensors and says which of how many it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file.values import Metadata, Value, ValueType

NO, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
KEYS = (NO, COUNT, TENSORS)
MOST_FILES = 65535  # what the key's uint16 holds
NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
UNITS = {"M": 1_000_000, "G": 1_000_000_000}
ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT, which sizes are rounded up to


def split_path(path: Path, i: int, count: int) -> Path:
    """Return the name of file ``i`` (from 0) of a model that would be called ``path``."""
    return path.with_name(f"{path.name.removesuffix('.gguf')}-{i + 1:05d}-of-{count:05d}.gguf")


def siblings(path: Path, count: int) -> list[Path] | None:
    """Return all files of the model that ``path`` belongs to, or None by another name."""
    match = NAME.fullmatch(path.name)
    if not match or int(match["count"]) != count:
        return None
    return [split_path(path.with_name(match["stem"]), i, count) for i in range(count)]


def number_in_name(path: Path) -> int:
    """Return which file of a model in several it is by its name, from 0; 0 by another name."""
    match = NAME.fullmatch(path.name)
    return int(match["number"]) - 1 if match else 0


def split_keys(i: int, count: int, n_tensors: int) -> Metadata:
    """Return the metadata by which file ``i`` is known as one of ``count``.

    In llama-gguf-split's order; llama-quantize has that of :data:`KEYS`.
    """
    return {
        NO: Value(ValueType.UINT16, i),
        TENSORS: Value(ValueType.INT32, n_tensors),
        COUNT: Value(ValueType.UINT16, count),
    }


def group(sizes: Sequence[int], max_bytes: int) -> list[slice]:
    """Group tensors into files, given their bytes in order: as many as each may hold.

    A tensor that is larger than ``max_bytes`` has a file of its own.
    """
    groups, start, held = [], 0, 0
    for i, nbytes in enumerate(sizes):
        padded = -(-nbytes // ALIGNMENT) * ALIGNMENT
        if i > start and held + padded > max_bytes:
            groups.append(slice(start, i))
            start, held = i, 0
        held += padded
    return [*groups, slice(start, len(sizes))]


def parse_size(text: str | int | None) -> int:
    """Return the bytes of a size such as ``500M`` or ``4G`` (powers of 1000); 0 for none.

    Raises:
        OptionError: the text is not a size.

    """
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text > 0):
        return text or 0
    match = re.fullmatch(r"(\d{1,15})([MG])", str(text).strip().upper())
    if not match or not int(match[1]):
        raise OptionError(
            f"split_max_size (--split-max-size): {text!r} is not a file size; write 500M or 4G "
            "(powers of 1000)"
        )
    return int(match[1]) * UNITS[match[2]]
