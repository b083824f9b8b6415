"""What is examined: a GGUF file, or a checkpoint seen as the GGUF that it would become."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import TensorInfo as CheckpointTensor
from lfm2gguf.checkpoint import TokenType
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, Metadata
from lfm2gguf.lfm2 import Plan
from lfm2gguf.members import ARCHITECTURES, is_retrieval
from lfm2gguf.storage import GGML, SAFETENSORS, StoredRows


@dataclass(frozen=True)
class Weights:
    """A stored tensor; ``type`` is None where a checkpoint's dtype has no place in a GGUF."""

    name: str
    shape: tuple[int, ...]  # NumPy's order
    type: GGMLType | None
    dtype: str
    path: Path
    offset: int

    def rows(self, chunk: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield rows as bytes, about ``chunk`` weights at a time: (first row, (rows, bytes))."""
        if self.type is None or 0 in self.shape:
            return iter(())
        shape = (math.prod(self.shape[:-1]), self.shape[-1])
        return StoredRows(self.path, self.offset, GGML[self.type], shape).tiles(weights=chunk)


@dataclass(frozen=True)
class Subject:
    """A file or folder under examination. ``metadata`` has the GGUF's keys in both cases.

    ``shapes`` are those of the GGUF's tensors, ``weights`` what is stored, by its own names.
    A checkpoint that cannot be planned has neither metadata nor shapes.
    """

    path: Path
    kind: str
    metadata: Metadata = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    weights: tuple[Weights, ...] = field(repr=False)

    @property
    def architecture(self) -> str:
        """``lfm2`` or ``lfm2moe``, as a rule."""
        return str(self.get("general.architecture", ""))

    def get(self, key: str, default: object = None) -> object:
        """Return the value of a metadata key."""
        value = self.metadata.get(key)
        return default if value is None else value.value

    def own(self, key: str) -> object:
        """Return the value of one of the architecture's keys, such as ``context_length``."""
        return self.get(f"{self.architecture}.{key}")

    def number(self, key: str) -> int | None:
        """Return the value of a key that holds a whole number, else None."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @cached_property
    def tokens(self) -> list[tuple[str, int]]:
        """The vocabulary, each token with its type."""
        names, types = (self.get(f"tokenizer.ggml.{key}", []) for key in ("tokens", "token_type"))
        names, types = _all(str, names), _all(int, types)
        types += [TokenType.NORMAL.value] * (len(names) - len(types))
        return list(zip(names, types, strict=False))

    def special(self, kind: str) -> str:
        """Return the text of a special token, such as ``bos``; empty where there is none."""
        id = self.number(f"tokenizer.ggml.{kind}_token_id")
        return self.tokens[id][0] if id is not None and 0 <= id < len(self.tokens) else ""

    @property
    def purpose(self) -> str:
        """What a file is for: a model, or one of those that lie beside models."""
        kind = str(self.get("general.type", "model"))
        if kind in ("adapter", "imatrix"):
            return kind
        if self.architecture == "clip":
            return "projector"
        known = self.kind == "checkpoint" or self.architecture in ARCHITECTURES
        return "model" if known else "other"

    @property
    def generates(self) -> bool:
        """Whether it is a model that writes text, and not one that embeds it."""
        return not is_retrieval(self, self.shapes)


def from_gguf(path: Path) -> Subject:
    """Open a GGUF file for examination.

    Raises:
        GGUFError: the file cannot be read.

    """
    file = GGUFFile.open(path)
    weights = tuple(
        Weights(t.name, _in_rows(t.shape), t.type, t.type.name, t.file, t.offset)
        for t in file.tensors.values()
    )
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    return Subject(path, "gguf", file.metadata, shapes, weights)


def from_checkpoint(path: Path, plan: Plan | None, tensors: Iterable[CheckpointTensor]) -> Subject:
    """See a checkpoint as its tensors, with what its plan says, if it could be planned."""
    weights = tuple(_weights(tensor) for tensor in tensors)
    if plan is None:
        return Subject(path, "checkpoint", {}, {}, weights)
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    return Subject(path, "checkpoint", plan.metadata, shapes, weights)


def _all(kind: type, values: object) -> list[Any]:
    """Return a list whose items are all of a kind; what is not one counts as empty."""
    is_such = isinstance(values, list) and all(type(value) is kind for value in values)
    return list(values) if is_such and isinstance(values, list) else []


def _weights(tensor: CheckpointTensor) -> Weights:
    stored, shape = SAFETENSORS[tensor.dtype].type, _in_rows(tensor.shape)
    return Weights(tensor.name, shape, stored, tensor.dtype, tensor.file, tensor.offset)


def _in_rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop ones at the end: a row of one number, as in a kernel of 1 x 1, is not a row."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape or (1,)
