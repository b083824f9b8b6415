"""Changing one thing in a GGUF file, so that there is something to find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, TensorSpec, Value, lay_out


@dataclass(frozen=True)
class Change:
    """Keys and tensors to replace or add; a key of None is taken away, as is a tensor named so."""

    metadata: Mapping[str, Value | None] = field(default_factory=dict)
    names: Mapping[str, str | None] = field(default_factory=dict)
    tensors: Mapping[str, tuple[GGMLType, np.ndarray]] = field(default_factory=dict)


def rewrite(source: Path, target: Path, change: Change) -> Path:
    file = GGUFFile.open(source)
    metadata = {**file.metadata, **change.metadata}
    specs, data = [], []
    for name in file.tensors | change.tensors:
        if (new_name := change.names.get(name, name)) is None:
            continue
        if name in change.tensors:
            type, rows = change.tensors[name]
            row = rows.shape[-1] * rows.itemsize // type.type_size * type.block_size
            shape = (*rows.shape[:-1], row)
        else:
            type, rows, shape = file.tensors[name].type, file.data(name), file.tensors[name].shape
        specs.append(TensorSpec(new_name, type, shape))
        data.append(np.ascontiguousarray(rows).tobytes())
    layout = lay_out({key: value for key, value in metadata.items() if value}, specs)
    with target.open("wb") as out:
        out.write(layout.header)
        for offset, part in zip(layout.offsets, data, strict=True):
            out.seek(offset)
            out.write(part)
        out.truncate(layout.size)
    return target


def f32(rows: Any) -> tuple[GGMLType, np.ndarray]:
    return GGMLType.F32, np.asarray(rows, "<f4")
