"""Measure what good files of a retrieval model differ by: what the limits rest on.

    python -m tests.benchmarks.retrieval_limits [--types Q4_0 IQ2_S ...] [CHECKPOINT ...]

Prints, for each type, the least figures over the kinds of model in tests/retrieval_example.py and
the checkpoints given. Types that demand an importance matrix have that of the example as a text
model, whose weights these are. ``spread`` is the standard deviation of what a query's rank
correlation lacks of 1, in units of its mean: the tolerance of the gate takes it to be 1.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from lfm2gguf import convert
from lfm2gguf.calibration import collect_imatrix
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.verification import TYPE_LIMITS, Engine, Limits, Material, Session
from lfm2gguf.verification.measure.similarity import Similarity
from tests.making.models import EXAMPLE
from tests.making.retrieval_example import KINDS, make_example

NO_LIMITS = Limits(min_cosine=-1.0, min_rank=-1.0, min_overlap=0.0)


Figures = dict[tuple[str, str], Similarity]


def ladder(
    source: Path, folder: Path, matrix: ImportanceMatrix, given: argparse.Namespace
) -> Figures:
    """The figures of a file of each type, as shipped and of the runtime alone."""
    session = Session(source, Material(chunks=given.chunks, cache=False))
    found: Figures = {}
    folder.mkdir()
    for type in given.types:
        target = folder / "a.gguf"
        try:
            convert(source, target, type, overwrite=True)
        except OptionError:  # it needs the matrix
            convert(source, target, Recipe(type, imatrix=matrix), overwrite=True)
        engine = Engine("llama.cpp", three_way=type in TYPE_LIMITS)
        result = session.judge(target, limits=NO_LIMITS, engine=engine)
        for stage, figures in result.stages.items():
            if stage != "quantization":
                assert isinstance(figures, Similarity)
                found[stage, type] = figures
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
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--types", nargs="+", default=list(FileType.__members__))
    given = parser.parse_args()
    found, matrix = defaultdict(list), collect_imatrix(EXAMPLE)
    with tempfile.TemporaryDirectory() as scratch:
        made = [make_example(KINDS[name], Path(scratch, name)) for name in given.kinds]
        for i, source in enumerate([*made, *given.checkpoints]):
            for key, figures in ladder(source, Path(scratch, f"files-{i}"), matrix, given).items():
                found[key].append(figures)
    for (stage, type), figures in sorted(found.items(), key=lambda item: item[0][0], reverse=True):
        print(f"{stage:8} {type:9} {line(figures)}")


if __name__ == "__main__":
    main()
