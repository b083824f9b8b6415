"""An importance matrix in a conversion: which of it belongs to a tensor, and what a file says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.conversion.sources import SourceTensor
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import Value, ValueType
from lfm2gguf.imatrix import ImportanceMatrix

EMBEDDING = "token_embd.weight"  # llama-quantize lets an entry of another size pass here
LONGEST = 127  # bytes of a string that llama-quantize sets (llama_model_kv_override, llama.h)


@dataclass(frozen=True)
class TaskImportance:
    """The importance of a tensor's columns, float32 (matrices, columns): one row each expert.

    ``first`` is the tensor's row that a task calls row 0.
    """

    values: NDArray[np.float32]
    rows_per_matrix: int
    first: int = 0

    def moved(self, rows: int) -> TaskImportance:
        """Return the same for a part whose rows are counted from another one."""
        return replace(self, first=self.first + rows)

    def of_rows(self, start: int, count: int) -> NDArray[np.float32]:
        """Return what weighs the errors of some rows: (columns,), or (rows, columns)."""
        if len(self.values) == 1:
            only: NDArray[np.float32] = self.values[0]
            return only
        rows = np.arange(self.first + start, self.first + start + count)
        return self.values[rows // self.rows_per_matrix]


def importance_of(matrix: ImportanceMatrix, source: SourceTensor) -> TaskImportance | None:
    """Return a tensor's part of the matrix, None where it has none.

    Source: src/llama-quant.cpp, ``llama_model_quantize_impl`` (llama.cpp 0c1e57098).
    """
    entry = matrix.entries.get(source.name)
    if entry is None or entry.sums.size != _size(source):
        return None
    values = entry.values.reshape(-1, source.shape[-1])
    return TaskImportance(values, math.prod(source.shape[:-1]) // len(values))


def check_matrix(matrix: ImportanceMatrix, sources: Sequence[SourceTensor]) -> None:
    """Refuse a matrix of another model.

    Raises:
        OptionError: it knows none of the tensors, or another size of one.

    """
    where = f"imatrix (--imatrix) {matrix.source}" if matrix.source else "imatrix"
    known = [source for source in sources if source.name in matrix.entries]
    if not known:
        raise OptionError(f"{where}: has no entry for any tensor; it is of another model")
    for source in known:
        found = matrix.entries[source.name].sums.size
        if found != _size(source) and source.name != EMBEDDING:
            raise OptionError(
                f"{where}: {source.name} has {found} values and the tensor needs "
                f"{_size(source)}; it is of another model"
            )


def matrix_keys(matrix: ImportanceMatrix) -> dict[str, Value]:
    """Return what a file says of the matrix, as llama-quantize does.

    Source: tools/quantize/quantize.cpp, ``main`` (llama.cpp 0c1e57098).
    """
    keys: dict[str, Value] = {}
    if matrix.source is not None:
        keys["file"] = Value(ValueType.STRING, _short(str(matrix.source)))
    if matrix.datasets:
        keys["dataset"] = Value(ValueType.STRING, _short(matrix.datasets[0]))
    keys["entries_count"] = Value(ValueType.UINT32, len(matrix.entries))
    if matrix.chunk_count > 0:
        keys["chunks_count"] = Value(ValueType.UINT32, matrix.chunk_count)
    return {f"quantize.imatrix.{key}": value for key, value in keys.items()}


def _size(source: SourceTensor) -> int:
    """Return the values of a whole entry: the columns of each expert."""
    return source.shape[-1] * (source.shape[0] if len(source.shape) == 3 else 1)


def _short(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:LONGEST].decode("utf-8", "surrogateescape")
