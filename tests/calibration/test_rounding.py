"""Feedback and refinement against the plain rounding, under moments as layers have them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lfm2gguf.calibration.feedback import factor, invert_diagonal, round_with_feedback
from lfm2gguf.calibration.grids import GRIDS, Levels, put_together, take_apart, values
from lfm2gguf.calibration.refine import Refinement, loss
from lfm2gguf.calibration.rounding import round_tensor
from lfm2gguf.calibration.triangles import by_lower, by_upper, lower_by, take_square
from lfm2gguf.crew import Crew
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import dequantize, quantize

ROWS, COLUMNS = 40, 512


def moments(seed: int, columns: int = COLUMNS) -> np.ndarray:
    """Second moments of correlated inputs, a few of them much larger than the others."""
    rng = np.random.default_rng(seed)
    few = columns // 4
    mix = rng.standard_normal((columns, few)) @ rng.standard_normal((few, columns)) / columns
    noise = rng.standard_normal((2, 4 * columns, columns))
    x = noise[0] + noise[1] @ mix
    x *= rng.gamma(1, 1, columns)
    h = x.T @ x / len(x)
    h[np.diag_indices_from(h)] += 0.01 * h.diagonal().mean()
    return h.astype(np.float32)


def weights(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((COLUMNS, ROWS)).astype(np.float32) * 0.05


def rounded(type: GGMLType, w: np.ndarray, h: np.ndarray) -> Levels:
    triangle = factor(h)
    return round_with_feedback(type, w, h, triangle, invert_diagonal(triangle))


@pytest.mark.parametrize("columns", [100, 200, 1300])
def test_the_factor_is_that_of_the_inverse(columns: int) -> None:
    h = moments(1, columns)
    u = factor(h)
    assert np.array_equal(u, np.triu(u))
    np.testing.assert_allclose(u.T @ (u @ h), np.eye(columns), atol=5e-3)
    assert np.array_equal(u, factor(h, Crew(2)))


def test_products_with_triangles() -> None:
    a, square = np.random.default_rng(9).standard_normal((2, 1100, 1100)).astype(np.float32)
    low, up = np.tril(square), np.triu(square)
    with Crew(2) as crew:
        made = by_upper(a, up, crew), by_lower(a, low, crew), lower_by(low, a, crew)
        rest = np.tril(square).copy()
        take_square(rest, a, crew)
    for found, wanted in zip(made, (a @ up, a @ low, low @ a), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    np.testing.assert_allclose(np.tril(rest), np.tril(square - a @ a.T), atol=2e-3)


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_each_step_loses_less(type: GGMLType) -> None:
    h, w = moments(2), weights(3)
    importance = np.ascontiguousarray(h.diagonal())
    plain = quantize(np.ascontiguousarray(w.T), type, importance=importance)
    before = loss(dequantize(plain, type, (ROWS, COLUMNS)).T - w, h)

    levels = rounded(type, w, h)
    after = loss(values(GRIDS[type], levels) - w, h)
    assert after < 0.95 * before

    # Each step of a refinement, in the second window; the gradient is kept there.
    state, grid = Refinement.start(type, levels, w, h), GRIDS[type]
    window = slice(256, 512)
    losses = [after]
    for _ in range(2):
        if grid.scales is not None:
            for start in range(256, 512, grid.sub_block):
                state.fit_sub_block(slice(start, start + grid.sub_block), window)
                losses.append(loss(state.error, h))
        for start in range(256, 512, grid.super_block):
            state.fit_super_block(slice(start, start + grid.super_block), window)
            losses.append(loss(state.error, h))
        state.move_levels(window)
        losses.append(loss(state.error, h))
    assert all(b <= a * (1 + 1e-5) for a, b in itertools.pairwise(losses)), losses
    assert losses[-1] < after
    np.testing.assert_allclose(
        state.gradient[window], (h @ state.error)[window], atol=1e-3 * np.abs(h).max()
    )

    # All of it: what is ahead sees what has changed behind it.
    state = Refinement.start(type, state.levels, w, h)
    state.improve()
    losses.append(loss(state.error, h))
    assert losses[-1] < losses[-2]
    np.testing.assert_allclose(
        state.gradient[window], (h @ state.error)[window], atol=1e-3 * np.abs(h).max()
    )

    # What is written is what was judged.
    data = put_together(type, state.levels)
    written = dequantize(data, type, (ROWS, COLUMNS)).T - w
    assert loss(written, h) == pytest.approx(losses[-1], rel=2e-3)


@pytest.mark.parametrize("type", [GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q4_0])
def test_with_independent_inputs_no_level_is_better(type: GGMLType) -> None:
    """Under a diagonal form each level's best value is the nearest one: moves change nothing."""
    h, w = np.eye(COLUMNS, dtype=np.float32), weights(5)
    levels = rounded(type, w, h)
    before = levels.q.copy()
    Refinement.start(type, levels, w, h).move_levels(slice(0, 256))
    assert (before != levels.q).mean() < 1e-4


@pytest.mark.parametrize("type", [GGMLType.IQ3_S, GGMLType.TQ2_0, GGMLType.IQ2_XXS])
def test_a_type_without_a_grid_is_rounded_plainly(type: GGMLType) -> None:
    h, w = moments(7), np.ascontiguousarray(weights(6).T)
    made = round_tensor(type, w, w.T, h, factor(h))
    assert made.plain
    assert (made.data == quantize(w, type, np.ascontiguousarray(h.diagonal()))).all()


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
@pytest.mark.parametrize("value", [0.0, 1e-30, 3e4])
def test_extremes(type: GGMLType, value: float) -> None:
    w = weights(6) * np.float32(value)
    h = moments(7)
    levels = rounded(type, w, h)
    state = Refinement.start(type, levels, w, h)
    state.improve()
    data = put_together(type, state.levels)
    assert np.isfinite(dequantize(data, type, (ROWS, COLUMNS))).all()
    assert take_apart(type, data).q.shape == (COLUMNS, ROWS)
