"""Make fp8.json: what torch and llama.cpp's converter make of FP8 weights.

    python -m tests.golden.make_fp8 LLAMA_CPP

LLAMA_CPP is llama.cpp's source (commit 0c1e57098). Needs torch and transformers. "values" are the
256 numbers of each type as torch.float8_* widens them, by their bits in float32; "cases" the
digests of the tensors that convert_hf_to_gguf.py writes of tests/making/fp8.py's checkpoints in
F32 (with one change: the tokenizer, whose hash it cannot know, is called lfm2).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.make_llama_cpp import CONVERT
from tests.golden.summary import digest
from tests.making.fp8 import FP8_CASES, make_fp8

TARGET = Path(__file__).with_name("fp8.json")
TYPES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}


def values(name: str) -> str:
    """The type's numbers, as hexadecimal bits of float32, each NaN as one."""
    import torch

    bits = torch.arange(256, dtype=torch.int16).to(torch.uint8)
    wide = bits.view(getattr(torch, name)).to(torch.float32)
    wide[wide.isnan()] = float("nan")
    return str(wide.numpy().astype(">f4").tobytes().hex())


def tensors(llama_cpp: Path, name: str) -> dict[str, str]:
    import gguf

    with tempfile.TemporaryDirectory() as temporary:
        folder = make_fp8(FP8_CASES[name], Path(temporary) / name)
        target = folder / "whole.gguf"
        code = CONVERT.format(source=str(llama_cpp), force_pre=True)
        arguments = [folder, "--outtype", "f32", "--outfile", target]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        return {t.name: digest(t.data.tobytes()) for t in gguf.GGUFReader(target).tensors}


def main(llama_cpp: Path) -> None:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    document: dict[str, Any] = {
        "made by": "tests/golden/make_fp8.py: torch, and convert_hf_to_gguf.py, 0c1e57098",
        "values": {dtype: values(name) for dtype, name in TYPES.items()},
        "cases": {name: tensors(llama_cpp, name) for name in FP8_CASES},
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
