"""Measure what good files of a retrieval model differ by: what the limits rest on.

    python -m tests.benchmarks.retrieval_limits [CHECKPOINT ...]

Prints, for each type, the least figures over the kinds of model in tests/retrieval_example.py and
the checkpoints given. ``spread`` is the standard deviation of what a query's rank correlation
lacks of 1, in units of its mean: the tolerance of the gate takes it to be 1.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from lfm2gguf import convert
from lfm2gguf.verification import TYPE_LIMITS, Engine, Material, Session
from lfm2gguf.verification.measure.similarity import Similarity
from tests.making.retrieval_example import KINDS, make_example


def ladder(source: Path, folder: Path, chunks: int) -> dict[tuple[str, str], Similarity]:
    """The figures of a file of each type, as shipped and of the runtime alone."""
    session = Session(source, Material(chunks=chunks, cache=False))
    found = {}
    folder.mkdir()
    for file in convert(source, folder, list(TYPE_LIMITS)).files:
        result = session.judge(file.path, engine=Engine("llama.cpp", three_way=True))
        for stage in ("shipped", "runtime"):
            figures = result.stages[stage]
            assert isinstance(figures, Similarity)
            found[stage, result.type] = figures
    return found


def line(figures: list[Similarity]) -> str:
    lacking = [1 - np.array(f.rank_correlations) for f in figures]
    spread = max((x.std() / x.mean() for x in lacking if x.mean() > 1e-3), default=0.0)
    return (
        f"cosine {min(f.cosine.value for f in figures):.6f} "
        f"worst text {min(min(f.cosines) for f in figures):.6f} "
        f"rank {min(f.rank_correlation.value for f in figures):.4f} spread {spread:.2f} "
        f"overlap {min(f.best_overlap.value for f in figures):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--chunks", type=int, default=8)
    given = parser.parse_args()
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        made = [make_example(kind, Path(scratch, name)) for name, kind in KINDS.items()]
        for i, source in enumerate([*made, *given.checkpoints]):
            for key, figures in ladder(source, Path(scratch, f"files-{i}"), given.chunks).items():
                found[key].append(figures)
    for (stage, type), figures in sorted(found.items(), key=lambda item: item[0][0], reverse=True):
        print(f"{stage:8} {type:7} {line(figures)}")


if __name__ == "__main__":
    main()
