"""Make lora_gguf.json: what convert_lora_to_gguf.py makes of the adapters in tests/adapters.py.

    python -m tests.golden.make_lora_gguf LLAMA_CPP

LLAMA_CPP is llama.cpp's source (commit 0c1e57098). Needs torch and transformers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.make_llama_cpp import describe
from tests.making.adapters import GGUF_CASES, AdapterCase, make_adapter, make_base

TARGET = Path(__file__).with_name("lora_gguf.json")


def golden(llama_cpp: Path, case: AdapterCase, folder: Path) -> dict[str, Any]:
    make_base(case, folder / "base")
    make_adapter(case, folder / "tune")
    files = {}
    for type in ("F32", "F16", "BF16", "Q8_0"):
        target = folder / f"{type}.gguf"
        script = [sys.executable, llama_cpp / "convert_lora_to_gguf.py", folder / "tune"]
        options = ["--base", folder / "base", "--outfile", target, "--outtype", type.lower()]
        subprocess.run([*script, *options], check=True)
        tensors: dict[str, dict[str, Any]] = {}
        files[type] = describe(target, tensors) | {"tensors": tensors}
    return files


def main(llama_cpp: Path) -> None:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    made_by = "tests/golden/make_lora_gguf.py: convert_lora_to_gguf.py, 0c1e57098"
    document: dict[str, Any] = {"made by": made_by, "cases": {}}
    for name, case in GGUF_CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            document["cases"][name] = golden(llama_cpp, case, Path(folder))
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
