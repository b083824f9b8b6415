"""Make splits.json: what llama-gguf-split makes of the file of tests.making.checkpoints.LARGE.

And, under "kept", what llama-quantize --keep-split makes of its BF16 files of 1M.

    python -m tests.golden.make_splits LLAMA_CPP QUANTIZE SPLIT_PROGRAM

LLAMA_CPP is llama.cpp's source (commit 0c1e57098), the others are the llama-quantize and the
llama-gguf-split built from it. Needs torch and transformers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.golden.make_llama_cpp import convert
from tests.golden.summary import digest
from tests.making.checkpoints import LARGE, make

KEPT = ("Q4_K_M", "Q3_K_M", "Q8_0")  # the first two count tensors of a kind in the file's order
TARGET = Path(__file__).with_name("splits.json")


def keep_split(quantize: Path, first: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Return the digests of the files that each type of :data:`KEPT` becomes, by name."""
    found = {}
    for type in KEPT:
        prefix = folder / f"kept-{type}"
        subprocess.run([quantize, "--keep-split", first, prefix, type, "2"], check=True)
        parts = sorted(folder.glob(f"{prefix.name}-0*.gguf"))
        found[type] = {part.name: digest(part.read_bytes()) for part in parts}
    return found


def main(llama_cpp: Path, quantize: Path, split: Path) -> None:
    sizes: dict[str, dict[str, dict[str, str]]] = {"1M": {}, "2M": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(LARGE, Path(temporary) / "LFM2-Split")
        convert(llama_cpp, LARGE, folder, folder / "whole.gguf")
        for type in ("BF16", "Q4_K_M"):
            small = folder / f"{type}.gguf"
            subprocess.run([quantize, folder / "whole.gguf", small, type, "2"], check=True)
            for size, files in sizes.items():
                prefix = folder / f"{type}-{size}"
                subprocess.run([split, "--split-max-size", size, small, prefix], check=True)
                parts = sorted(folder.glob(f"{prefix.name}-0*.gguf"))
                files[type] = {part.name: digest(part.read_bytes()) for part in parts}
        first = min(folder.glob("BF16-1M-0*.gguf"))
        kept = keep_split(quantize, first, folder)
    document = {
        "made by": "tests/golden/make_splits.py: llama-gguf-split, llama-quantize, 0c1e57098",
        "sizes": sizes,
        "kept": kept,
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
