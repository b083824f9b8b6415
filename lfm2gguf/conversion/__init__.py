"""A checkpoint or a GGUF to quantized GGUF files: drafted first, then filled in by workers.

``from_checkpoint``, ``from_gguf`` and ``adapter_file`` are the three recipes. Each makes a plan,
``mixtures`` gives every tensor its type, ``draft`` lays out the file, ``tasks`` cut the work and
``workers`` do it, and ``write`` puts the result under its name.
"""

from lfm2gguf.conversion.adapter_file import ConvertedAdapter, convert_lora
from lfm2gguf.conversion.draft import Draft, parse_types, target_paths
from lfm2gguf.conversion.from_checkpoint import Conversion, convert, draft_conversion
from lfm2gguf.conversion.from_gguf import quantize
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.conversion.write import Progress, ProgressCallback, WrittenFile

__all__ = [
    "Conversion",
    "ConvertedAdapter",
    "Draft",
    "Part",
    "Progress",
    "ProgressCallback",
    "SourceTensor",
    "WrittenFile",
    "convert",
    "convert_lora",
    "draft_conversion",
    "parse_types",
    "quantize",
    "target_paths",
]
