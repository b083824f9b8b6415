"""From tensors on disk to quantized GGUF files: drafted first, then filled in by workers."""

from lfm2gguf.pipeline.draft import Draft, SourceTensor, draft, parse_types, target_paths
from lfm2gguf.pipeline.run import Progress, ProgressCallback, WrittenFile, write

__all__ = [
    "Draft",
    "Progress",
    "ProgressCallback",
    "SourceTensor",
    "WrittenFile",
    "draft",
    "parse_types",
    "target_paths",
    "write",
]
