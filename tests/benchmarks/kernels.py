"""Speed of the kernels beside ggml's C, on the same weights in the same run.

    python tests/benchmarks/kernels.py [--types Q4_K,Q8_0] [--rounds 15] [--json]

Both sides run on one thread, by turns; what counts is the median, over the rounds, of the
ratio of their processor times (a busy machine disturbs that less than elapsed time). The
weights are normal, standard deviation 0.02, rounded to bfloat16 like those of a checkpoint.
``to`` is quantization, ``from`` dequantization; more than 1 is faster than C.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize
from tests.quants import oracle
from tests.quants.samples import bf16

# What the project holds itself to: quantization, one core, weights per second against C.
BARS = {"Q4_0": 0.5, "Q8_0": 1.0, "Q4_K": 1.0, "Q5_K": 1.0, "Q6_K": 1.0}


def seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def compare(
    c: Callable[[], object], ours: Callable[[], object], rounds: int, n: int
) -> dict[str, float]:
    c(), ours()
    times = [(seconds(c), seconds(ours)) for _ in range(rounds)]
    return {
        "c_mweights_per_s": n / statistics.median(t[0] for t in times) / 1e6,
        "mweights_per_s": n / statistics.median(t[1] for t in times) / 1e6,
        "ratio": statistics.median(t[0] / t[1] for t in times),
    }


def measure(type: GGMLType, x: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    data = quantize(x, type)
    assert np.array_equal(data, oracle.quantize(x, type)), "not ggml's bytes"
    return {
        "to": compare(lambda: oracle.quantize(x, type), lambda: quantize(x, type), rounds, x.size),
        "from": compare(
            lambda: oracle.dequantize(data, type, x.shape),
            lambda: dequantize(data, type, x.shape),
            rounds,
            x.size,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default=",".join(type.name for type in CODECS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=512, help="rows of 2048 weights")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    x = bf16(np.random.default_rng(0).standard_normal((args.rows, 2048)) * 0.02)
    results = {name: measure(GGMLType[name], x, args.rounds) for name in args.types.split(",")}
    environment = {
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "weights": x.size,
        "rounds": args.rounds,
    }
    if args.json:
        print(json.dumps({"environment": environment, "results": results}, indent=1))
        return
    print(*(f"{key} {value}" for key, value in environment.items()), sep=", ")
    print(f"{'type':5} {'':4} {'C, M/s':>9} {'NumPy, M/s':>11} {'ratio':>6} {'bar':>5}")
    for name, directions in results.items():
        for direction, r in directions.items():
            bar = BARS.get(name) if direction == "to" else None
            print(
                f"{name:5} {direction:4} {r['c_mweights_per_s']:9.1f} {r['mweights_per_s']:11.1f} "
                f"{r['ratio']:6.2f} {bar or '-':>5}"
            )


if __name__ == "__main__":
    main()
