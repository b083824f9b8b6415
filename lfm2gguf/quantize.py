"""A GGUF file becomes smaller ones: what llama-quantize does, from whoever's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lfm2gguf.convert import target_paths
from lfm2gguf.errors import GGUFError, UnsupportedError
from lfm2gguf.ggml import FileType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.pipeline import (
    Draft,
    ProgressCallback,
    SourceTensor,
    WrittenFile,
    draft,
    parse_types,
    write,
)
from lfm2gguf.quants import CODECS
