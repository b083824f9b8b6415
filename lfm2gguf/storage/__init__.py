"""Files of numbers and of anything else: rows that are read, files that appear whole."""

from lfm2gguf.storage.cache import cache_folder
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
    "cache_folder",
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
