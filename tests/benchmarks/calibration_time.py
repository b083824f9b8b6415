"""What the first layers of a calibration take, matrix by matrix, and its memory.

    python -m tests.benchmarks.calibration_time CHECKPOINT [--tokens 16384] [--layers 2]
        [--type Q4_K] [--threads N] [--float32] [--embedding]

CHECKPOINT may have random weights (tests/benchmarks/make_checkpoint.py). ``--float32`` multiplies
with NumPy alone, as processors without AVX512_BF16 do; the rounding is the same. Prints for each
matrix the seconds on the clock of the forward passes and moments before it (of those that see the
same input the first has all), and of its rounding, with the processor's in brackets.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration import recipe
from lfm2gguf.calibration.products import FLOAT32, products_for
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.ggml import GGMLType
from lfm2gguf.reference import EMBEDDING, Reference, Weights

CONTEXT = 512

Times: TypeAlias = npt.NDArray[np.float64]


def _now() -> Times:
    return np.array([time.perf_counter(), time.process_time()])


def _line(name: str, parts: Times) -> str:
    seconds = "".join(f"{clock:9.2f} ({processor:7.2f})" for clock, processor in parts)
    return f"{name:42}{seconds}"


def _matrices(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return what is rounded of a tensor: itself, or each expert's matrix of those that lie in one.

    The router's is not, as in llama.cpp.
    """
    if len(shape) == 3 and ".experts." in name:
        stack, matrix = name.removesuffix(".weight").rsplit(".", 1)
        return [f"{stack}.{e}.{matrix}.weight" for e in range(shape[0])]
    return [name] if len(shape) == 2 and not name.endswith(".gate.weight") else []


def main() -> None:
    """Calibrate the first layers on random tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--type", default="Q4_K")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--embedding", action="store_true", help="the embedding as well")
    options = parser.parse_args()
    products = FLOAT32 if options.float32 else products_for()
    weights = Weights.from_checkpoint(Checkpoint.open(options.checkpoint))
    wanted = tuple(f"model.layers.{i}." for i in range(options.layers))
    types = {
        matrix: GGMLType[options.type]
        for name, shape in weights.shapes.items()
        if name.startswith(wanted) or (options.embedding and name == EMBEDDING)
        for matrix in _matrices(name, shape)
    }
    rng = np.random.default_rng(0)
    sequences = [
        rng.integers(0, weights.vocabulary, CONTEXT).astype(np.int32)
        for _ in range(options.tokens // CONTEXT)
    ]
    print(f"products {products}, {options.tokens} tokens")
    times = [_now()]
    gather = recipe.gather

    def timed(*given: Any) -> Any:
        moments = gather(*given)
        times.append(_now())
        return moments

    recipe.gather = timed
    made = recipe.calibrate_layers(
        Reference(weights), sequences, types, threads=options.threads, products=products
    )
    totals = np.zeros((2, 2))
    for _ in range(len(types)):
        tensor = next(made)
        times.append(_now())
        parts = np.diff([times[0], times[-2], times[-1]], axis=0)
        print(_line(tensor.name, parts))
        totals += parts
        times = times[-1:]
    made.close()
    print(_line("all", totals))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB (mapped pages of the checkpoint included)")


if __name__ == "__main__":
    main()
