"""Make kernels.json: digests of what ggml's C stores for the samples of tests/quants.

Run with llama-cpp-python 0.3.36 installed: ``python -m tests.golden.make_kernels``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lfm2gguf.quants import CODECS
from tests.quants import oracle
from tests.quants.samples import SAMPLES, sample

TARGET = Path(__file__).with_name("kernels.json")


def main() -> None:
    digests = {
        type.name: {
            name: hashlib.sha256(oracle.quantize(sample(name), type)).hexdigest()[:32]
            for name in SAMPLES
        }
        for type in CODECS
    }
    weights = {name: hashlib.sha256(sample(name)).hexdigest()[:32] for name in SAMPLES}
    document = {
        "made by": "tests/golden/make_kernels.py: ggml_quantize_chunk of llama.cpp commit "
        "0c1e57098 (llama-cpp-python 0.3.36), x86-64",
        "weights": weights,
        "blocks": digests,
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
