"""Make moe.json: what llama.cpp's own programs make of the mixtures in tests/checkpoints.py.

    python -m tests.golden.make_moe LLAMA_CPP QUANTIZE

As make_llama_cpp.py, with the experts one by one: convert_hf_to_gguf.py knows no others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.golden.make_llama_cpp import golden
from tests.making.checkpoints import MOE_CASES

TARGET = Path(__file__).with_name("moe.json")


def main(llama_cpp: Path, quantize: Path) -> None:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    document = {
        "made by": "tests/golden/make_moe.py: convert_hf_to_gguf.py and llama-quantize, 0c1e57098",
        "cases": {
            name: golden(llama_cpp, quantize, name, case) for name, case in MOE_CASES.items()
        },
    }
    TARGET.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
