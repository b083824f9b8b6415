"""Compare another llama.cpp with the golden files, before its users meet the difference.

    python -m tests.golden.drift LLAMA_CPP QUANTIZE

LLAMA_CPP is its source, such as ``vendor/llama.cpp`` of the newest llama-cpp-python on the index,
QUANTIZE the llama-quantize built from it. Needs torch and transformers. Says which tensors and
keys of which case are no longer the same, and which architectures of the family its converter
knows and ours does not; exit code 1 if there are any.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lfm2gguf.lfm2 import ARCHITECTURES
from tests.golden import make_drafts, make_llama_cpp, make_retrieval
from tests.making import checkpoints, draft_models, retrieval_checkpoints

HERE = Path(__file__).parent
Make = Callable[[Path, Path, str, Any], dict[str, Any]]
CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "llama_cpp": (make_llama_cpp.golden, checkpoints.CASES),
    "moe": (make_llama_cpp.golden, checkpoints.MOE_CASES),
    "retrieval": (make_retrieval.golden, retrieval_checkpoints.CASES),
    "drafts": (make_drafts.golden, draft_models.CASES),
}
REGISTERED = re.compile(r'"((?:Lfm|LFM)\d\w*)"')


def unknown_architectures(llama_cpp: Path) -> set[str]:
    """Names of the family in its table of converters that ours lacks."""
    table = (llama_cpp / "conversion" / "__init__.py").read_text(encoding="utf-8")
    return set(REGISTERED.findall(table)) - set(ARCHITECTURES)


def differences(was: Any, now: Any, where: str) -> Iterator[str]:
    """Say where two JSON values differ, and how."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from differences(was.get(key), now.get(key), f"{where}: {key}")
        if was.keys() == now.keys() and list(was) != list(now):
            yield f"{where}: the order is another"
    elif was != now:
        yield f"{where}: was {was!r:.200}, is {now!r:.200}"


def main(llama_cpp: Path, quantize: Path) -> int:
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    found = [f"not converted here: {name}" for name in sorted(unknown_architectures(llama_cpp))]
    for file, (golden, cases) in CASES.items():
        known = json.loads((HERE / f"{file}.json").read_text(encoding="utf-8"))["cases"]
        for name, case in cases.items():
            now = golden(llama_cpp, quantize, name, case)
            found += differences(known[name], now, f"{file}: {name}")
    print("\n".join(found) or "no drift")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*(Path(argument).resolve() for argument in sys.argv[1:])))
