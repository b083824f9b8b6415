"""Files of numbers and of anything else: rows that are read, files that appear whole.

The names are loaded when they are first used: who looks for a file needs no codecs of its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfm2gguf.deferred import deferred

if TYPE_CHECKING:
    from lfm2gguf.storage.folders import is_folder, made_folder
    from lfm2gguf.storage.output import check_target, create, output_errors, write_whole
    from lfm2gguf.storage.partial import target_of
    from lfm2gguf.storage.rows import GGML, SAFETENSORS, DType, Scales, StoredRows
    from lfm2gguf.storage.scratch import scratch_folder
    from lfm2gguf.storage.unchanged import Stamp, check_unchanged, stamps

__all__ = [
    "GGML",
    "SAFETENSORS",
    "DType",
    "Scales",
    "Stamp",
    "StoredRows",
    "check_target",
    "check_unchanged",
    "create",
    "is_folder",
    "made_folder",
    "output_errors",
    "scratch_folder",
    "stamps",
    "target_of",
    "write_whole",
]

__getattr__ = deferred(
    __name__,
    {
        "cache": "cache_folder",
        "folders": "is_folder made_folder",
        "output": "check_target create output_errors write_whole",
        "partial": "target_of",
        "rows": "GGML SAFETENSORS DType Scales StoredRows",
        "scratch": "scratch_folder",
        "unchanged": "Stamp check_unchanged stamps",
    },
)
