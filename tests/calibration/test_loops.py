"""The compiled loops beside NumPy's: the same bits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.calibration.grids import GRIDS, Grid
from lfm2gguf.calibration.loops import NUMPY, Loops, Sums, loops_for
from lfm2gguf.calibration.rounding import round_tensor
from lfm2gguf.crew import Crew
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import kernels
from tests.calibration.test_rounding import moments

ROWS = 48
SCALES = st.sampled_from([1e-30, 1e-3, 1.0, 1e10])

pytestmark = [
    pytest.mark.slow,  # numba compiles
    pytest.mark.skipif(kernels.why_not_compiled() is not None, reason="no numba"),
]


@pytest.fixture(scope="module", name="compiled")
def _compiled() -> Iterator[Loops]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernels.VARIABLE, "numba")
        assert loops_for(ROWS + 1) is NUMPY, "rows that do not fill vectors"
        loops = loops_for(ROWS)
        assert loops is not NUMPY
        yield loops


def drawn(seed: int, grid: Grid, columns: int) -> tuple[np.ndarray, ...]:
    """Levels, scales of which some are zero, moments, and numbers of the size of weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3 * columns, columns))
    local = (x.T @ x / len(x)).astype(np.float32)
    scale = rng.standard_normal((columns // min(grid.sub_block, columns), ROWS))
    scale[rng.random(scale.shape) < 0.1] = 0
    numbers = rng.standard_normal((columns, ROWS)) * len(grid.codes) / 3
    q = rng.integers(0, len(grid.codes), (columns, ROWS)).astype(np.uint8)
    return q, scale.astype(np.float32), local, numbers.astype(np.float32)


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30), size=SCALES)
def test_levels(compiled: Loops, type: GGMLType, seed: int, size: float) -> None:
    grid = GRIDS[type]
    q, scale, local, numbers = drawn(seed, grid, 32)
    numbers, scale = numbers * np.float32(size), scale * np.float32(size)

    moved = [q.copy(), q.copy()]
    change = [
        loops.move_levels(grid, levels, scale, local, numbers)
        for loops, levels in zip((NUMPY, compiled), moved, strict=True)
    ]
    assert (moved[0] == moved[1]).all()
    assert (change[0] == change[1]).all()

    offset = None if grid.minimum is None else scale[::-1].copy()
    made, left = [q.copy(), q.copy()], [numbers.copy(), numbers.copy()]
    errors = [
        loops.round_columns(grid, w, scale, offset, np.triu(local), levels)
        for loops, w, levels in zip((NUMPY, compiled), left, made, strict=True)
    ]
    assert (made[0] == made[1]).all()
    assert (errors[0] == errors[1]).all()
    assert (left[0][-1] == left[1][-1]).all()


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30), size=SCALES, limits=st.sampled_from([(0, 63), (-32, 31)]))
def test_scales(compiled: Loops, seed: int, size: float, limits: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    u, v, r = (rng.standard_normal((3, 32, ROWS)) * size).astype(np.float32)
    v[:, 0] = u[:, 0]  # in one direction
    u[:, 1], v[:, 2] = 0, 0
    sums = [
        Sums(*(loops.dots(a, b) for a, b in ((u, u), (u, r), (v, v), (u, v), (v, r))))
        for loops in (NUMPY, compiled)
    ]
    for one, other in zip(*sums, strict=True):
        assert same(one, other)
    d, dmin = (np.abs(rng.standard_normal((2, ROWS))) * 0.03).astype(np.float32)
    d[3], dmin[4] = 0, 0
    sc, m = (rng.integers(limits[0], limits[1] + 1, (2, ROWS))).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        one, other = (loops.best_scale(sums[0], d, sc, limits) for loops in (NUMPY, compiled))
        assert (one == other).all()
        pairs = [loops.best_scales(sums[0], d, sc, dmin, m, limits) for loops in (NUMPY, compiled)]
    assert all((a == b).all() for a, b in zip(*pairs, strict=True))


def test_sums_go_from_the_first_column_to_the_last(compiled: Loops) -> None:
    a = np.float32([[1e8], [1], [-1e8]]).repeat(ROWS, axis=1)
    ones = np.ones_like(a)
    assert (compiled.dots(a, ones) == 0).all()
    assert (NUMPY.dots(a, ones) == 0).all()


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_a_multiple_is_added_to_each_row(compiled: Loops, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, out = rng.standard_normal((2, 40, ROWS)).astype(np.float32)
    a, other = rng.standard_normal(ROWS).astype(np.float32), out.copy()
    NUMPY.add_scaled(out, a, x)
    compiled.add_scaled(other, a, x)
    assert same(out, other)


@pytest.mark.parametrize(
    ("type", "columns", "rows"),
    [
        ("Q4_K", 512, 528),
        ("Q6_K", 256, 16),
        ("IQ4_XS", 256, 1),
        ("Q4_1", 320, 50),
        ("Q8_0", 288, 1040),
    ],
)
def test_a_whole_tensor_has_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, type: str, columns: int, rows: int
) -> None:
    """Columns that are no whole super-blocks, and rows that are no whole vectors, too."""
    h = moments(4, columns)
    w = np.random.default_rng(5).standard_normal((rows, columns)).astype(np.float32)
    made = []
    for name in ("numpy", "numba"):
        monkeypatch.setenv(kernels.VARIABLE, name)
        with Crew(2) as crew:
            made.append(round_tensor(GGMLType[type], w, w.T, h, crew=crew))
    assert np.array_equal(made[0].data, made[1].data)
    assert made[0].loss == made[1].loss < 0.9 * made[0].plain_loss


@pytest.mark.weekly
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86-64's")
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
def test_processors_without_avx_512(cpu: str) -> None:
    """Other machine code from the same loops."""
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "levels or scales or row"]
    done = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0
