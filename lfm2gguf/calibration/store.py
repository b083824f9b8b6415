"""Finished tensors in a folder, until the file is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lfm2gguf.calibration.grids import Bytes
from lfm2gguf.conversion import Draft, Part, SourceTensor
from lfm2gguf.ggml import GGMLType
from lfm2gguf.storage import GGML, StoredRows, write_whole


class Store:
    """Finished tensors in a folder, each under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, expert: int | None = None) -> Path:
        """Return where a tensor of a GGUF, or one of its experts, lies, or will."""
        return self.folder / (f"{name}.bin" if expert is None else f"{name}.{expert}.bin")

    def load(self, name: str, expert: int | None = None) -> Bytes | None:
        """Return the bytes of a finished tensor."""
        path = self.path(name, expert)
        return np.fromfile(path, np.uint8) if path.is_file() else None

    def save(self, name: str, expert: int | None, data: Bytes) -> None:
        """Keep a finished tensor."""
        content = np.ascontiguousarray(data).tobytes()
        write_whole(self.path(name, expert), content, overwrite=True)


def finished_sources(
    draft: Draft, names: Mapping[str, str], store: Store
) -> tuple[SourceTensor, ...]:
    """Return the draft's sources, with finished tensors in place of the checkpoint's."""
    types = {tensor.name: tensor.type for tensor in draft.tensors}
    finished = set(names.values())
    return tuple(
        _finished(source, types[source.name], store) if source.name in finished else source
        for source in draft.sources
    )


def _finished(source: SourceTensor, type: GGMLType, store: Store) -> SourceTensor:
    stacked = len(source.shape) == 3
    rows = source.shape[-2]
    parts = []
    for expert in range(source.shape[0]) if stacked else (None,):
        path = store.path(source.name, expert)
        stored = StoredRows(path, 0, GGML[type], (rows, source.shape[-1]))
        parts.append(Part(source.name, stored, 0, rows))
    return replace(source, parts=tuple(parts))
