"""Make retrieval.json: what llama.cpp's programs make of tests/retrieval_checkpoints.py.

    python -m tests.golden.make_retrieval LLAMA_CPP QUANTIZE

As make_llama_cpp.py, but the converter writes F32, because a dense layer may be saved in F32
beside BF16 weights, and no weight is to be rounded before llama-quantize sees it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.make_llama_cpp import CONVERT, TYPES, describe
from tests.making.retrieval_checkpoints import CASES, Retrieval, make_retrieval

TARGET = Path(__file__).with_name("retrieval.json")


def golden(llama_cpp: Path, quantize: Path, name: str, case: Retrieval) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {}
    files = {}
    code = CONVERT.format(source=str(llama_cpp), force_pre=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_retrieval(case, Path(temporary) / name)
        whole, small = folder / "whole.gguf", folder / "small.gguf"
        command = [sys.executable, "-c", code, folder, "--outtype", "f32", "--outfile", whole]
        subprocess.run(command, check=True)
        for type in TYPES:
            subprocess.run([quantize, whole, small, type, "2"], check=True)
            files[type] = describe(small, tensors)
    metadata: dict[str, Any] = {}
    for file in files.values():  # differs in one key only
        metadata = file.pop("metadata")
        file["general.file_type"] = metadata.pop("general.file_type")
    return {"metadata": metadata, "files": files, "tensors": tensors}


def main(llama_cpp: Path, quantize: Path) -> None:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    about = "tests/golden/make_retrieval.py: convert_hf_to_gguf.py and llama-quantize, 0c1e57098"
    cases = {name: golden(llama_cpp, quantize, name, case) for name, case in CASES.items()}
    text = json.dumps({"made by": about, "cases": cases}, indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
