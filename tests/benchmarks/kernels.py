"""Speed of the kernels beside ggml's C, on the same weights in the same run.

    python tests/benchmarks/kernels.py [--types Q4_K,Q8_0] [--rounds 15] [--json]

``numba`` is the compiled kernels of the fast extra, where that is installed, ``bf16`` the same
from bfloat16 as it is stored. All run on one thread, by turns; what counts is the median, over
the rounds, of the ratio of their processor times (a busy machine disturbs that less than
elapsed time). The weights are normal, standard deviation 0.02, rounded to bfloat16 like those
of a checkpoint.
``to`` is quantization, ``from`` dequantization; more than 1 is faster than C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, f32_to_bf16, quantize
from lfm2gguf.quants.kernels import VARIABLE, why_not_compiled
from tests.quants import oracle
from tests.quants.samples import bf16

# What the project holds itself to: NumPy's quantization, one core, against C.
BARS = {"Q4_0": 0.5, "Q8_0": 1.0, "Q4_K": 1.0, "Q5_K": 1.0, "Q6_K": 1.0}


def seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def compare(calls: dict[str, Callable[[], object]], rounds: int, n: int) -> dict[str, Any]:
    """Million weights a second of each, and how many times the first one's speed it has."""
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    c = next(iter(calls))
    return {
        name: {
            "mweights_per_s": n / statistics.median(t[name] for t in times) / 1e6,
            "ratio": statistics.median(t[c] / t[name] for t in times),
            "ratios": [min(t[c] / t[name] for t in times), max(t[c] / t[name] for t in times)],
        }
        for name in calls
    }


def by(kernel: str, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        os.environ[VARIABLE] = kernel
        return call()

    return run


def ways(type: GGMLType, call: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """The same by NumPy's kernels and, where there are any, by the compiled ones."""
    found = {"NumPy": by("numpy", call)}
    if CODECS[type].compiled and not why_not_compiled():
        found["numba"] = by("numba", call)
    return found


def measure(type: GGMLType, x: np.ndarray, rounds: int) -> dict[str, dict[str, Any]]:
    narrow, results = f32_to_bf16(x), {}
    for name, importance in (("to", None), ("with importance to", uneven(x.shape[1]))):
        if importance is None and CODECS[type].needs_importance:
            continue
        if importance is not None and CODECS[type].weighting is None:
            continue
        store = {"C": lambda q=importance: oracle.quantize(x, type, q)}
        store |= ways(type, lambda q=importance: quantize(x, type, q))
        if "numba" in store:
            store["bf16"] = by("numba", lambda q=importance: quantize(narrow, type, q))
        data = store["NumPy"]()
        assert all(np.array_equal(data, call()) for call in store.values()), "not ggml's bytes"
        results[name] = compare(store, rounds, x.size)
    load = {"C": lambda: oracle.dequantize(data, type, x.shape)}
    load |= ways(type, lambda: dequantize(data, type, x.shape))
    return results | {"from": compare(load, rounds, x.size)}


def uneven(n: int) -> np.ndarray:
    """Importance of columns, as layers have it: most alike, some far above."""
    return (np.random.default_rng(1).standard_normal(n) ** 4).astype(np.float32)


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
    for name, directions in results.items():
        for direction, found in directions.items():
            bar = f", bar {BARS[name]}" if direction == "to" and name in BARS else ""
            print(f"{name} {direction}: C {found.pop('C')['mweights_per_s']:.1f} M/s{bar}")
            for kernel, r in found.items():
                low, high = r["ratios"]
                speed = f"{r['mweights_per_s']:8.1f} M/s"
                print(f"  {kernel:5} {speed}  {r['ratio']:5.2f} times C ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
