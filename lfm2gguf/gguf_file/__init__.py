"""GGUF files: reading them safely, and laying out and writing new ones.

The format is described in docs/gguf.md of the ggml repository; ggml/src/gguf.cpp of
llama.cpp, commit 0c1e57098, is what it is in practice. Nothing here knows of LFM2.
"""

from lfm2gguf.gguf_file.reader import GGUFFile, TensorInfo
from lfm2gguf.gguf_file.splits import (
    KEYS,
    MOST_FILES,
    group,
    number_in_name,
    parse_size,
    split_keys,
    split_path,
)
from lfm2gguf.gguf_file.values import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    UNSTORABLE,
    Metadata,
    Value,
    ValueType,
)
from lfm2gguf.gguf_file.writer import Layout, TensorSpec, lay_out

__all__ = [
    "ALIGNMENT",
    "DEFAULT_ALIGNMENT",
    "KEYS",
    "MOST_FILES",
    "UNSTORABLE",
    "GGUFFile",
    "Layout",
    "Metadata",
    "TensorInfo",
    "TensorSpec",
    "Value",
    "ValueType",
    "group",
    "lay_out",
    "number_in_name",
    "parse_size",
    "split_keys",
    "split_path",
]
