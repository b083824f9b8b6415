"""Make llama_cpp.json: what llama.cpp's own programs make of the cases in tests/checkpoints.py.

    python -m tests.golden.make_llama_cpp LLAMA_CPP QUANTIZE DATA

LLAMA_CPP is llama.cpp's source (commit 0c1e57098), QUANTIZE the llama-quantize built from it,
DATA a folder with the tokenizers and configs of LFM2-1.2B and LFM2.5-1.2B-Base. Needs torch and
transformers. Every checkpoint goes through convert_hf_to_gguf.py, with one change: the made-up
tokenizer, whose hash it cannot know, is called lfm2. The real ones go through unchanged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.summary import digest, value
from tests.making.checkpoints import CASES, REAL, Case, make, real

TARGET = Path(__file__).with_name("llama_cpp.json")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0")
CONVERT = """
import sys
sys.path[1:1] = [{source!r}, {source!r} + "/gguf-py"]
import conversion.base
if {force_pre}:
    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "lfm2"
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


def convert(llama_cpp: Path, case: Case, folder: Path, target: Path) -> None:
    code = CONVERT.format(source=str(llama_cpp), force_pre=case.tokenizer is None)
    outtype = "bf16" if case.dtype == "BF16" else "f32"
    command = [sys.executable, "-c", code, folder, "--outtype", outtype, "--outfile", target]
    subprocess.run(command, check=True)


def describe(path: Path, tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One file by llama.cpp's gguf package; digests of the weights are added to ``tensors``."""
    import gguf

    reader = gguf.GGUFReader(path)
    for t in reader.tensors:
        known = tensors.setdefault(t.name, {"shape": [int(n) for n in t.shape[::-1]]})
        known[t.tensor_type.name] = digest(t.data.tobytes())
    assert [t.name for t in reader.tensors] == list(tensors), "the order differs between types"
    return {
        "metadata": {
            name: value([type.name for type in field.types], field.contents())
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        },
        "types": [t.tensor_type.name for t in reader.tensors],
        "sha256": digest(path.read_bytes()),
    }


def golden(llama_cpp: Path, quantize: Path, name: str, case: Case) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {}
    files = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(case, Path(temporary) / name)
        whole, small = folder / "whole.gguf", folder / "small.gguf"
        convert(llama_cpp, case, folder, whole)
        for type in ("BF16",) if case.tokenizer else TYPES:
            subprocess.run([quantize, whole, small, type, "2"], check=True)
            files[type] = describe(small, tensors)
    metadata: dict[str, Any] = {}
    for file in files.values():  # differs in one key only
        metadata = file.pop("metadata")
        file["general.file_type"] = metadata.pop("general.file_type")
    return {"metadata": metadata, "files": files, "tensors": tensors}


def main(llama_cpp: Path, quantize: Path, data: Path) -> None:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    cases = CASES | {name: real(data / name) for name in REAL}
    about = "tests/golden/make_llama_cpp.py: convert_hf_to_gguf.py and llama-quantize, 0c1e57098"
    document = {
        "made by": about,
        "cases": {name: golden(llama_cpp, quantize, name, case) for name, case in cases.items()},
    }
    TARGET.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
