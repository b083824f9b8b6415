"""Importance matrices: which columns of a weight matter, as llama-imatrix counts it.

``matrix`` is the value, ``files`` and ``legacy`` its two file formats, ``table`` the one
that llama-imatrix shows. Collecting one takes a forward pass: see
:mod:`lfm2gguf.calibration`.
"""

from lfm2gguf.imatrix.files import read_imatrix, write_imatrix
from lfm2gguf.imatrix.matrix import DEFAULT_CHUNK, Entry, ImportanceMatrix, merge
from lfm2gguf.imatrix.table import LayerStatistics, TensorStatistics, by_layer, statistics

__all__ = [
    "DEFAULT_CHUNK",
    "Entry",
    "ImportanceMatrix",
    "LayerStatistics",
    "TensorStatistics",
    "by_layer",
    "merge",
    "read_imatrix",
    "statistics",
    "write_imatrix",
]
