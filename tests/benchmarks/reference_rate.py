"""How near the reference pass comes to the machine's float32 matrix rate, and its memory.

    python tests/benchmarks/reference_rate.py CHECKPOINT [--chunks 4] [--ctx 512]

The rate counts the multiplications of the linear layers and of the head over the whole pass
(reading and widening weights, attention, norms and activations all cost time and add nothing
to the count). The plain product is of this model's own feed-forward shape, best of sixteen,
half of them before and half after the pass.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from lfm2gguf.blas import describe
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.reference.forward import Reference
from lfm2gguf.reference.weights import EMBEDDING, Weights


def product_rate(rows: int, width: int, tokens: int = 2048) -> float:
    x, w = np.ones((tokens, width), np.float32), np.ones((rows, width), np.float32)
    out = np.empty((tokens, rows), np.float32)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        np.matmul(x, w.T, out=out)
        seconds.append(time.perf_counter() - started)
    return 2 * tokens * rows * width / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--ctx", type=int, default=512)
    options = parser.parse_args()
    weights = Weights.from_checkpoint(Checkpoint.open(options.checkpoint))
    model = Reference(weights)
    rng = np.random.default_rng(0)
    sequences = [
        rng.integers(0, weights.vocabulary, options.ctx).astype(np.int32)
        for _ in range(options.chunks)
    ]
    positions = np.arange(options.ctx // 2, options.ctx - 1)
    feed_forward = weights.shapes["model.layers.0.feed_forward.w1.weight"]

    plain = product_rate(*feed_forward)
    started = time.perf_counter()
    states = model.states(sequences, [positions] * options.chunks)
    out = np.empty((len(positions), weights.vocabulary), np.float32)
    for i in range(options.chunks):
        model.logits(states[i * len(positions) : (i + 1) * len(positions)], out)
    seconds = time.perf_counter() - started
    plain = max(plain, product_rate(*feed_forward))

    linear = sum(
        int(np.prod(shape))
        for name, shape in weights.shapes.items()
        if len(shape) == 2 and name not in (EMBEDDING, weights.head)
    )
    head = int(np.prod(weights.shapes[weights.head]))
    count = 2 * (linear * options.ctx + head * len(positions)) * options.chunks
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"BLAS                 {describe()}")  # OPENBLAS_CORETYPE may have chosen slower kernels
    print(f"pass                 {seconds:.2f} s, {count / seconds / 1e9:.0f} GFLOP/s")
    print(f"plain matrix product {plain / 1e9:.0f} GFLOP/s")
    print(f"share                {count / seconds / plain:.2f}")
    print(f"peak memory          {peak:.0f} MB (mapped pages of the checkpoint included)")


if __name__ == "__main__":
    main()
