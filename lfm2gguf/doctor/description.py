"""Describes a GGUF file or a checkpoint: metadata, tensors, totals. No weight is read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.doctor import remote
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.rendering import Table, file_size, notebook_table

SHOWN_ITEMS = 8  # of an array, unless all are asked for


@dataclass(frozen=True)
class DescribedTensor:
    """A tensor's name, shape in NumPy's order, type, bytes, and place in its file."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    offset: int
    file: str

    @property
    def n_weights(self) -> int:
        """Weights in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Description:
    """What a file or folder holds; long arrays are cut to their first items."""

    path: Path
    kind: str  # "gguf" or "checkpoint"
    metadata: Mapping[str, Any]
    tensors: tuple[DescribedTensor, ...]

    def __repr__(self) -> str:
        """Return the totals, short."""
        return (
            f"Description({str(self.path)!r}: {self.n_weights:,} weights, "
            f"{file_size(self.nbytes)}, {len(self.tensors)} tensors)"
        )

    def _repr_html_(self) -> str:
        """Return the totals by type as a notebook shows them."""
        rows = [
            (name, str(row["tensors"]), f"{row['weights']:,}", file_size(row["bytes"]))
            for name, row in self.by_type.items()
        ]
        table = Table("", ("type", "tensors", "weights", "size"), rows)
        return notebook_table(table, repr(self))

    @property
    def n_weights(self) -> int:
        """Weights in all tensors."""
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def by_type(self) -> dict[str, dict[str, int]]:
        """For each type: how many tensors, weights and bytes."""
        table: dict[str, dict[str, int]] = defaultdict(
            lambda: {"tensors": 0, "weights": 0, "bytes": 0}
        )
        for tensor in self.tensors:
            row = table[tensor.type]
            row["tensors"] += 1
            row["weights"] += tensor.n_weights
            row["bytes"] += tensor.nbytes
        return dict(sorted(table.items(), key=lambda item: -item[1]["bytes"]))

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "weights": self.n_weights,
            "bytes": self.nbytes,
            "bits_per_weight": round(8 * self.nbytes / max(1, self.n_weights), 4),
            "types": self.by_type,
            "metadata": dict(self.metadata),
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "type": tensor.type,
                    "bytes": tensor.nbytes,
                    "offset": tensor.offset,
                    "file": tensor.file,
                }
                for tensor in self.tensors
            ],
        }


def describe(
    path: str | Path,
    *,
    full: bool = False,
    type: str | None = None,
    revision: str | None = None,
) -> Description:
    """Describe a GGUF file, a checkpoint's folder, or a Hub repository by its headers.

    ``type`` says which GGUF file of a repository (Q4_K_M where it holds no checkpoint),
    ``revision`` which commit.

    Raises:
        HubError: the repository cannot be reached.
        GGUFError: the file is not a sound GGUF file.
        CheckpointError: the folder is not a sound checkpoint.
        OptionError: ``type`` or ``revision`` is given for what is on this machine.

    """
    with remote.opened(path, type, revision) as stand_in:
        here = stand_in or Path(path)
        found = _checkpoint(here) if here.is_dir() else _gguf(here, full)
        return replace(found, path=Path(path)) if stand_in else found


def _gguf(path: Path, full: bool) -> Description:
    file = GGUFFile.open(path)
    metadata = {_text(key): _shown(value.value, full) for key, value in file.metadata.items()}
    tensors = [
        DescribedTensor(_text(t.name), t.shape, t.type.name, t.nbytes, t.offset, t.file.name)
        for t in file.tensors.values()
    ]
    return Description(path, "gguf", metadata, tuple(tensors))


def _checkpoint(path: Path) -> Description:
    checkpoint = Checkpoint.open(path)
    tensors = [
        DescribedTensor(t.name, t.shape, t.dtype, t.nbytes, t.offset, t.file.name)
        for t in checkpoint.tensors.values()
    ]
    return Description(path, "checkpoint", checkpoint.config, tuple(tensors))


def _shown(value: Any, full: bool) -> Any:
    if isinstance(value, list):
        items = [_shown(getattr(item, "value", item), full) for item in value]
        if full or len(items) <= SHOWN_ITEMS:
            return items
        return {"length": len(items), "first": items[:SHOWN_ITEMS]}
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    """Replace bytes that are not UTF-8, which JSON cannot hold."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
