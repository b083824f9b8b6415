"""Make projectors.json: what llama-quantize makes of the vision projectors in tests/multimodal.py.

    python -m tests.golden.make_projectors QUANTIZE

QUANTIZE is llama-quantize of llama.cpp, commit 0c1e57098. It starts from the F32 files that
convert writes, whose bytes multimodal.json holds to llama.cpp's converter. Audio projectors it does
not take: it stops at the kernels of their convolutions, whose rows fit no type.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lfm2gguf import convert
from tests.golden.summary import digest
from tests.making.multimodal import CASES, make_multimodal

TARGET = Path(__file__).with_name("projectors.json")
NAMES = ("LFM2-VL-450M", "LFM2.5-VL-Tune-v2-float32")
# Types, and options as llama-quantize has them; those of the recipe are called the same.
CALLS: dict[str, tuple[str, list[str]]] = {
    "Q4_K_M": ("Q4_K_M", []),
    "Q8_0": ("Q8_0", []),
    "F16": ("F16", []),
    "Q4_0 pure": ("Q4_0", ["--pure"]),
    "Q4_K_M named": ("Q4_K_M", ["--tensor-type", "ffn_(up|down)=q8_0", "--tensor-type", "mm=q5_1"]),
}


def main(quantize: Path) -> None:
    """Write the file."""
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in NAMES:
            folder = make_multimodal(CASES[name], Path(scratch, name))
            source = folder / "mmproj.gguf"
            convert(folder, source, "F32", projector=True, jobs=1)
            found[name] = {}
            for call, (type, options) in CALLS.items():
                target = folder / "out.gguf"
                subprocess.run([quantize, *options, source, target, type, "2"], check=True)
                found[name][call] = digest(target.read_bytes())
    about = "tests/golden/make_projectors.py: llama-quantize, 0c1e57098"
    TARGET.write_text(json.dumps({"made by": about, "files": found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
