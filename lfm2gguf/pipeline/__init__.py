"""From tensors on disk to quantized GGUF files: drafted first, then filled in by workers."""

from lfm2gguf.pipeline.draft import Draft, SourceTensor, default_name, draft, parse_types
from lfm2gguf.pipeline.run import Progress, ProgressCallback, WrittenFile, write

__all__ = [
    "Draft",
    "Progress",
    "ProgressCallback",
    "SourceTensor",
    "WrittenFile",
    "default_name",
    "draft",
    "parse_types",
    "write",
]
