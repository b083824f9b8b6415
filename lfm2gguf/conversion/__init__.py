"""A checkpoint or a GGUF to quantized GGUF files: planned first, then filled in by workers.

``from_checkpoint``, ``from_gguf`` and ``adapter_file`` are the three ways in; a ``recipe`` says
how weights are stored. ``mixtures`` gives every tensor its type and ``draft`` lays out the file;
``planned`` holds the drafts until they are written. ``tasks`` cut the work, ``workers`` do it,
and ``write`` puts the result under its name.
"""

from lfm2gguf.conversion.adapter_file import (
    AdapterPlan,
    ConvertedAdapter,
    convert_lora,
    plan_adapter,
)
from lfm2gguf.conversion.draft import Draft, Model, target_paths
from lfm2gguf.conversion.from_checkpoint import convert, plan
from lfm2gguf.conversion.from_gguf import plan_quantization, quantize
from lfm2gguf.conversion.mixtures import fitting
from lfm2gguf.conversion.overrides import read_patterns
from lfm2gguf.conversion.planned import Conversion, ConversionPlan
from lfm2gguf.conversion.recipe import Recipe, Types, parse_types
from lfm2gguf.conversion.sources import Part, SourceTensor
from lfm2gguf.conversion.write import WrittenFile

__all__ = [
    "AdapterPlan",
    "Conversion",
    "ConversionPlan",
    "ConvertedAdapter",
    "Draft",
    "Model",
    "Part",
    "Recipe",
    "SourceTensor",
    "Types",
    "WrittenFile",
    "convert",
    "convert_lora",
    "fitting",
    "parse_types",
    "plan",
    "plan_adapter",
    "plan_quantization",
    "quantize",
    "read_patterns",
    "target_paths",
]
