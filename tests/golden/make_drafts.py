"""Make drafts.json: what llama.cpp's programs make of tests/making/draft_models.py.

    python -m tests.golden.make_drafts LLAMA_CPP QUANTIZE

As make_llama_cpp.py; the target, whose tokenizer a draft has, is that file's LFM2-rows-of-256.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.make_llama_cpp import CONVERT, TYPES, describe
from tests.making.checkpoints import CASES as TARGETS
from tests.making.checkpoints import make
from tests.making.draft_models import CASES, DraftCase, make_draft

TARGET = Path(__file__).with_name("drafts.json")
DRAFTS_FOR = "LFM2-rows-of-256"


def golden(llama_cpp: Path, quantize: Path, name: str, case: DraftCase) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {}
    files = {}
    code = CONVERT.format(source=str(llama_cpp), force_pre=True)
    outtype = "bf16" if case.dtype == "BF16" else "f32"
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_draft(case, Path(temporary) / name)
        target = make(TARGETS[DRAFTS_FOR], Path(temporary) / DRAFTS_FOR)
        whole, small = folder / "whole.gguf", folder / "small.gguf"
        command = [sys.executable, "-c", code, folder, "--target-model-dir", target]
        subprocess.run([*command, "--outtype", outtype, "--outfile", whole], check=True)
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
    about = "tests/golden/make_drafts.py: convert_hf_to_gguf.py and llama-quantize, 0c1e57098"
    cases = {name: golden(llama_cpp, quantize, name, case) for name, case in CASES.items()}
    text = json.dumps({"made by": about, "cases": cases}, indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
