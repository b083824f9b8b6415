"""From tensors on disk to quantized GGUF files: drafted first, then filled in by workers."""

from lfm2gguf.pipeline.draft import Draft, draft, parse_types, target_paths
from lfm2gguf.pipeline.parts import Part, SourceTensor
from lfm2gguf.pipeline.run import Progress, ProgressCallback, WrittenFile, write

__all__ = [
    "Draft",
    "Part",
    "Progress",
    "ProgressCallback",
    "SourceTensor",
    "WrittenFile",
    "draft",
    "parse_types",
    "target_paths",
    "write",
]
