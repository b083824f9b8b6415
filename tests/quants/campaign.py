"""Hundreds of millions of random weights, every byte compared with ggml's.

Run as ``python -m tests.quants.campaign --weights 100`` (million weights for each type).
Each batch draws a distribution, its precision and its scale; a batch that differs is named
by its seed, and ``--seed`` runs it alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from lfm2gguf.errors import QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, quantize

from . import oracle
from .samples import bf16

SHAPE = (256, 2048)

DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(SHAPE),
    "uniform": lambda rng: rng.uniform(-1, 1, SHAPE),
    "one-signed": lambda rng: rng.choice([-1, 1]) * rng.exponential(1, SHAPE),
    "student t": lambda rng: rng.standard_t(rng.uniform(1, 5), SHAPE),
    "laplace, offset": lambda rng: rng.laplace(rng.normal(0, 10), 1, SHAPE),
    "sparse": lambda rng: rng.standard_normal(SHAPE) * (rng.random(SHAPE) < rng.random()),
    "integers": lambda rng: rng.integers(-rng.integers(1, 40), 40, SHAPE).astype(float),
    "magnitudes": lambda rng: rng.standard_normal(SHAPE) * 10 ** rng.uniform(-6, 6, SHAPE),
    "rows of scales": lambda rng: (
        rng.standard_normal(SHAPE) * 10 ** rng.uniform(-3, 3, (SHAPE[0], 1))
    ),
    "sub-blocks of scales": lambda rng: (
        rng.standard_normal((*SHAPE[:-1], SHAPE[-1] // 16, 16))
        * 10 ** rng.uniform(-3, 3, (*SHAPE[:-1], SHAPE[-1] // 16, 1))
    ).reshape(SHAPE),
    "zeros of both signs": lambda rng: np.where(rng.random(SHAPE) < 0.5, -0.0, 0.0),
    "constant sub-blocks": lambda rng: rng.standard_normal((SHAPE[0], SHAPE[1] // 16)).repeat(
        16, axis=1
    ),
    "denormal": lambda rng: rng.integers(-(1 << 23), 1 << 23, SHAPE) * 2.0**-149,
    "any finite bits": lambda rng: np.nan_to_num(
        rng.integers(0, 1 << 32, SHAPE, np.uint32).view(np.float32), posinf=1, neginf=-1
    ).astype(float),
    "one outlier": lambda rng: (
        rng.standard_normal(SHAPE) * np.where(np.arange(SHAPE[1]) % 256 == 7, 1e6, 1e-3)
    ),
    "far from zero": lambda rng: 100 + rng.standard_normal(SHAPE) * 1e-4,
}


def batch(seed: int) -> tuple[str, np.ndarray]:
    """Weights of a distribution, precision and scale drawn by ``seed``; and their name."""
    rng = np.random.default_rng(seed)
    name = list(DISTRIBUTIONS)[rng.integers(len(DISTRIBUTIONS))]
    exponent = rng.choice([-2.0, -2.0, rng.uniform(-30, 30)])
    if name in ("denormal", "any finite bits"):
        exponent = 0.0
    with np.errstate(over="ignore", under="ignore"):
        x = (DISTRIBUTIONS[name](rng) * 10**exponent).astype(np.float32)
    x = np.clip(x, -3e38, 3e38)
    precision = ("f32", "bf16", "f16")[rng.integers(3)]
    if precision == "bf16":
        x = bf16(x)
    elif precision == "f16" and abs(exponent) < 3:
        x = np.clip(x, -6e4, 6e4).astype(np.float16).astype(np.float32)
    return f"{name}, {precision}, times 1e{exponent:.1f}", x


def importance_of(seed: int, type: GGMLType) -> np.ndarray | None:
    """For every other batch, and where the type needs it."""
    if CODECS[type].weighting is None or (seed % 2 and not CODECS[type].needs_importance):
        return None
    rng = np.random.default_rng((seed, 1))
    return (rng.random(SHAPE[1]) ** rng.integers(1, 9)).astype(np.float32)


def differences(seed: int, type: GGMLType) -> int:
    """Blocks of a batch whose bytes are not ggml's."""
    name, x = batch(seed)
    given = importance_of(seed, type)
    try:
        ours = quantize(x, type, given).reshape(-1, type.type_size)
    except QuantizationError:  # where ggml would end the program
        return 0
    wrong = int((ours != oracle.quantize(x, type, given).reshape(ours.shape)).any(axis=1).sum())
    if wrong:
        print(f"{type.name}: {wrong} of {len(ours)} blocks differ, seed {seed}: {name}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=float, default=10, help="millions of each type")
    parser.add_argument("--types", default=",".join(type.name for type in CODECS))
    parser.add_argument("--first", type=int, default=0, help="seed of the first batch")
    parser.add_argument("--seed", type=int, help="one batch only")
    args = parser.parse_args()
    wrong = 0
    for type in (GGMLType[name] for name in args.types.split(",")):
        began = time.perf_counter()
        count = -(-int(args.weights * 1e6) // (SHAPE[0] * SHAPE[1]))
        seeds = range(args.first, args.first + count) if args.seed is None else [args.seed]
        found = sum(differences(seed, type) for seed in seeds)
        weights = len(seeds) * SHAPE[0] * SHAPE[1] / 1e6
        seconds = time.perf_counter() - began
        blocks = f"{weights / type.block_size:.2f} M blocks"
        print(f"{type.name}: {blocks}, {found} differ, {seconds:.0f} s", flush=True)
        wrong += found
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
