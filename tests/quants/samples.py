"""Weights to quantize: ordinary ones, and every kind that takes a path of its own.

Made of integer arithmetic and single roundings, so that they are the same bits everywhere,
as the golden digests need.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS

SHAPE = (6, 1024)  # 24 super-blocks, 192 blocks


def bits(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Pseudo-random uint64: splitmix64 of a counter."""
    x = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape) + np.uint64(seed << 32)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def uniform(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Uniform in [0, 1), float64, a multiple of 2**-24."""
    return (bits(seed, shape) >> np.uint64(40)) * 2.0**-24


def normal(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Nearly normal, variance 1: the sum of twelve uniforms less six."""
    return sum(uniform(seed + 1000 * i, shape) for i in range(12)) - 6.0


def powers(seed: int, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Powers of two with exponents uniform in [low, high)."""
    return np.ldexp(1.0, low + (bits(seed, shape) >> np.uint64(33)).astype(np.int64) % (high - low))


def bf16(x: np.ndarray) -> np.ndarray:
    """Cut to the precision that checkpoints have."""
    return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def per(size: int, seed: int, low: int, high: int) -> np.ndarray:
    """Normal weights; each run of ``size`` has a magnitude of its own."""
    runs = (SHAPE[0], SHAPE[1] // size, 1)
    return (normal(seed).reshape(*runs[:2], size) * powers(seed, low, high, runs)).reshape(SHAPE)


def any_finite(seed: int) -> np.ndarray:
    """All bit patterns alike, but for NaN and infinity."""
    x = (bits(seed) >> np.uint64(32)).astype(np.uint32)
    return np.where(x & 0x7F800000 == 0x7F800000, x ^ 0x40000000, x).view(np.float32)


SAMPLES: dict[str, Callable[[], np.ndarray]] = {
    "normal": lambda: normal(1) * 0.02,
    "bf16": lambda: bf16(normal(2) * 0.02),
    "uniform": lambda: uniform(3) - 0.5,
    "positive": lambda: uniform(4),
    "negative": lambda: -uniform(5),
    "heavy tails": lambda: normal(6) / (uniform(7) + 2.0**-24),
    "sparse": lambda: normal(8) * (uniform(9) < 0.05),
    "few values": lambda: np.floor(uniform(10) * 7) - 3,
    "one spike": lambda: 0.01 * normal(11) + (np.arange(SHAPE[1]) % 256 == 77),
    "constant": lambda: np.full(SHAPE, -0.3),
    "zero": lambda: np.zeros(SHAPE),
    "minus zero": lambda: -np.zeros(SHAPE),
    "signs of zero": lambda: np.where(uniform(12) < 0.5, -0.0, 0.0),
    "denormal": lambda: normal(13) * 2.0**-136,
    "tiny": lambda: normal(14) * 2.0**-50,
    "large": lambda: normal(15) * 2.0**14,
    "huge": lambda: (uniform(16) - 0.5) * 2.0**128,
    "far from zero": lambda: -1000 - uniform(17) * 2.0**-4,
    "ranges of weights": lambda: normal(18) * powers(19, -60, 60, SHAPE),
    "ranges of blocks": lambda: per(32, 20, -149, 120),
    "ranges of sub-blocks": lambda: per(16, 21, -20, 10),
    "ranges of super-blocks": lambda: per(256, 22, -149, 120),
    "near ggml's epsilon": lambda: per(16, 23, -56, -44),
    "any finite float": lambda: any_finite(24),
}


def sample(name: str) -> np.ndarray:
    return SAMPLES[name]().astype(np.float32)


# Weights whose squared errors overflow float32: there ggml's search of the grids of IQ2 and IQ3
# ends the program. That of IQ1 goes on; what it makes is not always valid.
OVERFLOWING = (
    "huge",
    "ranges of weights",
    "ranges of blocks",
    "ranges of super-blocks",
    "any finite float",
)


def uses_grid(type: GGMLType) -> bool:
    return type.name.startswith(("IQ1", "IQ2", "IQ3"))


def ends_ggml(type: GGMLType, name: str) -> bool:
    """Whether ggml would end the program (GGML_ASSERT) on a sample, weighed or not."""
    if type is GGMLType.IQ1_M:
        return name == "any finite float"  # without importance alone
    return uses_grid(type) and type is not GGMLType.IQ1_S and name in OVERFLOWING


def names(type: GGMLType) -> list[str]:
    """The samples that ggml can quantize to a type."""
    return [name for name in SAMPLES if not ends_ggml(type, name)]


# How important columns are: every kind that an importance matrix may hold.
IMPORTANCE: dict[str, Callable[[], np.ndarray]] = {
    "even": lambda: np.full(SHAPE[1:], 0.5),
    "uniform": lambda: uniform(31, SHAPE[1:]),
    "heavy tails": lambda: powers(32, -20, 20, SHAPE[1:]) * (1 + uniform(33, SHAPE[1:])),
    "dead columns": lambda: uniform(34, SHAPE[1:]) * (uniform(35, SHAPE[1:]) < 0.3),
    "all dead": lambda: np.zeros(SHAPE[1:]),
}


def importance(name: str | None, n: int = SHAPE[1]) -> np.ndarray | None:
    """Importance of ``n`` columns, float32; None for None."""
    return None if name is None else np.resize(IMPORTANCE[name]().astype(np.float32), n)


def needed(type: GGMLType, x: np.ndarray) -> np.ndarray | None:
    """Importance for the columns of ``x``, where a type cannot do without."""
    if not CODECS[type].needs_importance:
        return None
    return np.resize(importance("uniform", 256), x.shape[-1])  # the same for every super-block
