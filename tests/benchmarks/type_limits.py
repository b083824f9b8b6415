"""Measure what good files of every type differ by: what the limits of ``verify`` rest on.

    python -m tests.benchmarks.type_limits --wikitext wiki.test.raw [--types Q4_0 IQ2_S ...]
        [--made plain imatrix calibrated] [--out limits.jsonl]

Each type of the example model, plain, with an importance matrix of the bundled text and
calibrated on it, where the type allows, is judged on 16 chunks of 512 tokens of Python's
documentation, of WikiText-2 and on conversations. A line of JSON for each file: KL divergence
(mean, and of the worst chunk in units of the mean), perplexity increase and equal top tokens by
text; and by tensor type the error of the worst run of 32 weights, of the worst tensor, and of
tensors as a multiple of what plain rounding of the same weights loses (the median, the largest).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import lfm2gguf
from lfm2gguf.calibration import collect_imatrix
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.quants import CODECS
from lfm2gguf.verification import Engine, Limits, Material, Session, Verification
from lfm2gguf.verification.measure.rounding import plainly_rounded
from tests.benchmarks.fidelity import EXAMPLE, texts

CHUNKS = 16
MADE = ("plain", "imatrix", "calibrated")
NO_LIMITS = Limits(max_ppl_increase=1e9, max_kld=1e9, min_top1=0.0)


def noise(type: GGMLType, *, heavy: bool) -> float:
    """The relative error of plain rounding, of weights with heavy tails or of normal ones."""
    rng = np.random.default_rng(0)
    shape = (256, 1024)
    x = rng.standard_t(4, shape) if heavy else rng.standard_normal(shape)
    x = x.astype(np.float32)
    return float(np.linalg.norm(plainly_rounded(x, type) - x) / np.linalg.norm(x))


def make(type: FileType, made: str, matrix: ImportanceMatrix, path: Path) -> bool:
    """Write a file; return whether there is one of this type made so."""
    try:
        if made == "calibrated":
            lfm2gguf.calibrate(EXAMPLE, path, type.name, overwrite=True)
        else:
            recipe = Recipe(type, imatrix=matrix if made == "imatrix" else None)
            lfm2gguf.convert(EXAMPLE, path, recipe, overwrite=True)
    except Lfm2ggufError as error:
        print(f"{type.name} {made}: {error}")
        return False
    return True


def line(type: FileType, made: str, found: dict[str, Verification]) -> dict[str, Any]:
    """All figures of a file, those of the text by the text's name."""
    by_type = defaultdict(list)
    for tensor in next(iter(found.values())).tensors:
        if GGMLType[tensor.type].is_quantized:
            by_type[tensor.type].append((tensor.worst, tensor.rms, tensor.excess))
    return {
        "type": type.name,
        "made": made,
        "texts": {
            name: {
                "kld": result.figures.kld.value,
                "worst": max(c.kld for c in result.figures.chunks) / result.figures.kld.value,
                "ppl": result.figures.ppl_ratio.value - 1,
                "top": result.figures.same_top.value,
            }
            for name, result in found.items()
        },
        "tensors": {
            name: {
                "run": max(worst for worst, _, _ in errors),
                "rms": max(rms for _, rms, _ in errors),
                "median": statistics.median(times for _, _, times in errors),
                "most": max(times for _, _, times in errors),
            }
            for name, errors in by_type.items()
        },
    }  # fmt: skip


def main() -> None:
    """Measure, and write a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wikitext", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=list(FileType.__members__))
    parser.add_argument("--made", nargs="+", default=list(MADE))
    parser.add_argument("--out", type=Path, default=Path("limits.jsonl"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, given.out.open("w") as out:
        for type in GGMLType:
            if type in CODECS and type.is_quantized:
                heavy, normal = (noise(type, heavy=heavy) for heavy in (True, False))
                print(json.dumps({"noise": type.name, "heavy": heavy, "normal": normal}), file=out)
        files = texts(Path(scratch), given.wikitext)
        sessions = {
            name: Session(EXAMPLE, Material(texts=[files[f"{name}-2"]], chunks=CHUNKS, cache=False))
            for name in ("docs", "wiki", "chat")
        }
        matrix = collect_imatrix(EXAMPLE)
        for name in given.types:
            for made in given.made:
                type, path = FileType[name], Path(scratch, "a.gguf")
                if not type.default.is_quantized or not make(type, made, matrix, path):
                    continue
                found = {
                    text: session.judge(
                        path, limits=NO_LIMITS, engine=Engine("llama.cpp", threads=1)
                    )
                    for text, session in sessions.items()
                }
                print(json.dumps(line(type, made, found)), file=out, flush=True)


if __name__ == "__main__":
    main()
