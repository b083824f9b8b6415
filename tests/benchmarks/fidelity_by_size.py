"""What choosing the types buys under the bytes of a mixture, as llama-perplexity measures it.

    python -m tests.benchmarks.fidelity_by_size LLAMA_BIN --wikitext wiki.test.raw
        [--type Q4_K_M] [CHECKPOINT]

LLAMA_BIN as tests/benchmarks/fidelity.py's, whose texts these are. On the first half of Python's
documentation there are llama-quantize's mixture with llama-imatrix's matrix, and files of no more
bytes whose types are chosen: rounded with the importance matrix, and calibrated. Prints for
each text a line of JSON for each file, KL divergences also as a share of the mixture's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import lfm2gguf
from lfm2gguf.allocation import Budget, allocate
from lfm2gguf.calibration import collect_imatrix
from lfm2gguf.conversion import Recipe
from tests.benchmarks.fidelity import CHUNKS, EXAMPLE, Programs, texts

OURS = 352  # bytes that a calibrated file says of itself, which say nothing of weights


def main() -> None:
    """Make the files and judge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("llama", type=Path)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--wikitext", type=Path, required=True)
    parser.add_argument("--type", default="Q4_K_M")
    given = parser.parse_args()
    checkpoint = given.checkpoint
    with tempfile.TemporaryDirectory() as name:
        programs = Programs(given.llama, checkpoint, Path(name))
        work, parts = programs.work, texts(programs.work, given.wikitext)
        matrix, mixture = work / "docs.imatrix.gguf", work / "mixture.gguf"
        programs.run("llama-imatrix", "-m", programs.f32, "-f", parts["docs-1"], "-c", 512,
                     "--chunks", CHUNKS, "-t", 1, "-o", matrix)  # fmt: skip
        programs.run("llama-quantize", "--imatrix", matrix, programs.f32, mixture, given.type)
        budget = Budget(nbytes=mixture.stat().st_size + OURS)
        text = {"texts": [parts["docs-1"]], "chunks": CHUNKS}
        files = {"mixture": mixture, "imatrix": work / "chosen.gguf", "calibrated": work / "c.gguf"}
        weighed = Recipe(imatrix=collect_imatrix(checkpoint, **text))
        chosen = allocate(checkpoint, budget, weighed, **text)
        lfm2gguf.convert(checkpoint, files["imatrix"], chosen.recipe)
        chosen = allocate(checkpoint, budget, Recipe(calibrated=True), **text)
        lfm2gguf.calibrate(checkpoint, files["calibrated"], chosen.recipe, **text)
        for judged in ("docs", "wiki", "chat"):
            found = {made: programs.judge(path, parts[f"{judged}-2"])
                     for made, path in files.items()}  # fmt: skip
            for made, figures in found.items():
                share = round(figures["kld"] / found["mixture"]["kld"], 3)
                size = files[made].stat().st_size
                print(json.dumps({"file": made, "judged_on": judged, "bytes": size,
                                  "share": share, **figures}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
