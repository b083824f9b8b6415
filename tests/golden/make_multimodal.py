"""Make multimodal.json: what llama.cpp's programs make of the cases in tests/multimodal.py.

    python -m tests.golden.make_multimodal LLAMA_CPP QUANTIZE

LLAMA_CPP is llama.cpp's source (commit 0c1e57098), QUANTIZE the llama-quantize built from it.
Needs torch and transformers. The text model goes through convert_hf_to_gguf.py and
llama-quantize; the projector through convert_hf_to_gguf.py --mmproj with the type as its
outtype, and then through llama-quantize COPY, which keeps every tensor and puts them in order.

Two things are changed in the converter: the made-up tokenizer's name, and the square root where
a batch norm is folded. PyTorch's comes from MKL for float32, is not correctly rounded, and so
differs between processors in the last bits; here it is taken in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.make_llama_cpp import CONVERT, describe
from tests.making.multimodal import CASES, Case, make_multimodal

EXACT_ROOT = "import torch\ntorch.sqrt = lambda x: x.double().sqrt().float()\n"
TARGET = Path(__file__).with_name("multimodal.json")
TEXT_TYPES = ("BF16", "Q4_K_M")
PROJECTOR_TYPES = ("F32", "F16", "BF16", "Q8_0")


def golden(llama_cpp: Path, quantize: Path, name: str, case: Case) -> dict[str, Any]:
    """A text model's files, or those of text model and projector."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_multimodal(case, Path(temporary) / name)
        outtype = "bf16" if case.dtype == "BF16" else "f32"
        text = _convert(llama_cpp, folder, outtype)
        parts = {"text": {t: _quantize(quantize, text, t) for t in TEXT_TYPES}}
        if "projector" in case.parts:
            parts["projector"] = {
                type: _quantize(quantize, _convert(llama_cpp, folder, type, "--mmproj"), "COPY")
                for type in PROJECTOR_TYPES
            }
        return {part: _describe(files) for part, files in parts.items()}


def _convert(llama_cpp: Path, folder: Path, outtype: str, *flags: str) -> Path:
    target = folder / f"{outtype}{''.join(flags)}.gguf"
    code = EXACT_ROOT + CONVERT.format(source=str(llama_cpp), force_pre=True)
    command = [sys.executable, "-c", code, folder, "--outtype", outtype.lower()]
    subprocess.run([*command, "--outfile", target, *flags], check=True)
    return target


def _quantize(quantize: Path, source: Path, type: str) -> Path:
    target = source.with_name(f"{source.stem}-{type}.gguf")
    subprocess.run([quantize, source, target, type, "2"], check=True)
    return target


def _describe(paths: dict[str, Path]) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {}
    files = {type: describe(path, tensors) for type, path in paths.items()}
    metadata: dict[str, Any] = {}
    for file in files.values():  # differs in one key only
        metadata = file.pop("metadata")
        file["general.file_type"] = metadata.pop("general.file_type")
    return {"metadata": metadata, "files": files, "tensors": tensors}


def main(llama_cpp: Path, quantize: Path) -> None:
    """Write the file."""
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    about = "tests/golden/make_multimodal.py: convert_hf_to_gguf.py and llama-quantize, 0c1e57098"
    cases = {name: golden(llama_cpp, quantize, name, case) for name, case in CASES.items()}
    text = json.dumps({"made by": about, "cases": cases}, indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
