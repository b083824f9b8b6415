"""Make kernels.json: digests of what ggml's C stores for the samples of tests/quants.

Run with llama-cpp-python 0.3.36 installed: ``python -m tests.golden.make_kernels``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS
from tests.quants import oracle
from tests.quants.samples import SAMPLES, importance, names, sample

KIND = "heavy tails"  # of importance
TARGET = Path(__file__).with_name("kernels.json")


def digest(data: np.ndarray | None) -> str:
    return hashlib.sha256(np.ascontiguousarray(data)).hexdigest()[:32]


def digests(type: GGMLType, importance: np.ndarray | None) -> dict[str, str]:
    return {name: digest(oracle.quantize(sample(name), type, importance)) for name in names(type)}


def main() -> None:
    plain = [type for type, codec in CODECS.items() if not codec.needs_importance]
    weighted = [type for type, codec in CODECS.items() if codec.weighting]
    weights = {name: digest(sample(name)) for name in SAMPLES}
    document = {
        "made by": "tests/golden/make_kernels.py: ggml_quantize_chunk of llama.cpp commit "
        "0c1e57098 (llama-cpp-python 0.3.36), x86-64",
        "weights": weights,
        "importance": digest(importance(KIND)),
        "blocks": {type.name: digests(type, None) for type in plain},
        "blocks with importance": {type.name: digests(type, importance(KIND)) for type in weighted},
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
