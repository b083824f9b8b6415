"""Files of numbers and of anything else: rows that are mapped, files that appear whole."""

from lfm2gguf.storage.output import check_target, create, output_errors, write_whole
from lfm2gguf.storage.partial import target_of
from lfm2gguf.storage.rows import GGML, SAFETENSORS, DType, StoredRows

__all__ = [
    "GGML",
    "SAFETENSORS",
    "DType",
    "StoredRows",
    "check_target",
    "create",
    "output_errors",
    "target_of",
    "write_whole",
]
