"""Make mixtures.json: what llama_model_quantize makes of the cases in tests/making.

Run with llama-cpp-python 0.3.36 installed: ``python -m tests.golden.make_mixtures``. That
function is all of llama-quantize; an importance matrix goes in without its metadata.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api

from lfm2gguf import GGUFFile, convert
from lfm2gguf.conversion.overrides import parse_patterns
from lfm2gguf.ggml import FileType, GGMLType
from tests.golden.summary import digest
from tests.making.checkpoints import make
from tests.making.mixture_cases import (
    MODELS,
    OPTIONS,
    Wanted,
    describe,
    importance,
    label,
    wanted,
)

TARGET = Path(__file__).with_name("mixtures.json")


def quantize(source: Path, target: Path, want: Wanted, given: dict[str, np.ndarray]) -> bool:
    """Whether llama_model_quantize wrote the file."""
    type, with_importance, option = want
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = FileType[type].id, 1
    kept: list[Any] = []
    if with_importance:
        matrix = (api.llama_model_imatrix_data * (len(given) + 1))()
        for entry, (name, values) in zip(matrix, given.items(), strict=False):
            kept.append(np.ascontiguousarray(values))
            pointer = kept[-1].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry.name, entry.data, entry.size = name.encode(), pointer, values.size
        params.imatrix = ctypes.cast(matrix, ctypes.POINTER(api.llama_model_imatrix_data))
    chosen = OPTIONS[option] if option else {}
    params.pure = chosen.get("pure", False)
    params.quantize_output_tensor = not chosen.get("leave_output_tensor", False)
    for key in ("output_tensor_type", "token_embedding_type"):
        if key in chosen:
            setattr(params, key, GGMLType[chosen[key]].id)
    if patterns := parse_patterns(chosen.get("tensor_type", ()), ""):
        types = (api.llama_model_tensor_override * (len(patterns) + 1))()
        for entry, (pattern, tensor_type) in zip(types, patterns, strict=False):
            entry.pattern, entry.type = pattern.pattern.encode(), tensor_type.id
        params.tt_overrides = ctypes.cast(types, ctypes.POINTER(api.llama_model_tensor_override))
    names = str(source).encode(), str(target).encode()
    return llama_cpp.llama_model_quantize(*names, ctypes.byref(params)) == 0


def golden(name: str, folder: Path) -> dict[str, Any]:
    source, target = folder / "whole.gguf", folder / "small.gguf"
    convert(make(MODELS[name], folder / "model"), source, "F32", jobs=1)
    given = importance(GGUFFile.open(source))
    files: dict[str, Any] = {}
    for want in wanted(name):
        written = quantize(source, target, want, given)
        found = {"types": describe(target), "sha256": digest(target.read_bytes())}
        files[label(want)] = found if written else None
    return files


def main() -> None:
    cases = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            cases[name] = golden(name, Path(folder))
    about = "tests/golden/make_mixtures.py: llama_model_quantize of llama.cpp commit 0c1e57098"
    TARGET.write_text(json.dumps({"made by": about, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
