"""Hold the depth suite beside llama-bench: the same file, interleaved in one run, medians.

    python tests/benchmarks/bench_beside_llama_bench.py MODEL.gguf --programs llama.cpp/build/bin

``llama-bench -p N -n 0`` is the prefill of N tokens, ``-p 0 -n 32 -d N`` decodes behind them.
Prints JSON; the ratios are ours to llama-bench's, and those of each round show the noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from lfm2gguf.bench.cells import DECODED, Cell
from lfm2gguf.bench.metrics import METRICS
from lfm2gguf.bench.sources.inprocess import InProcess
from lfm2gguf.llamacpp import default_threads


def llama_bench(programs: Path, model: Path, *what: object) -> float:
    command = [programs / "llama-bench", "-m", model, "-t", default_threads(), *what]
    done = subprocess.run(
        [*map(str, command), "-r", "1", "-o", "json"], capture_output=True, check=True
    )
    return float(json.loads(done.stdout)[0]["avg_ts"])


def measure(programs: Path, model: Path, context: int, rounds: int) -> dict[str, Any]:
    cell = Cell("depth", str(context), context, DECODED)
    ours: dict[str, list[float]] = {"decode": [], "prefill": []}
    theirs: dict[str, list[float]] = {"decode": [], "prefill": []}
    source = InProcess(model, cells=[cell], device="cpu")
    source.prepare(cell)
    source.measure(cell.warm_up, [0])
    for round in range(rounds):
        (measured,) = source.measure(cell, [round])
        for id in ours:
            value = METRICS[id].of(measured)
            assert value is not None
            ours[id].append(value)
        theirs["prefill"].append(llama_bench(programs, model, "-p", context, "-n", 0))
        theirs["decode"].append(llama_bench(programs, model, "-p", 0, "-n", DECODED, "-d", context))
    source.close()
    return {
        id: {
            "ours": [round_(v) for v in ours[id]],
            "llama_bench": [round_(v) for v in theirs[id]],
            "ratio_of_medians": round_(statistics.median(ours[id]) / statistics.median(theirs[id])),
            "ratio_of_best": round_(max(ours[id]) / max(theirs[id])),
        }
        for id in ours
    }


def round_(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.programs, given.model, given.context, given.rounds), indent=1))


if __name__ == "__main__":
    main()
