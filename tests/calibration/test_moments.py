"""Sums over tokens against NumPy's in float64: means, and what a weight should make up for."""

from __future__ import annotations

import numpy as np
import pytest

from lfm2gguf.calibration.feedback import factor
from lfm2gguf.calibration.moments import CORRECTION, Moments, damp, gather, targets
from lfm2gguf.calibration.streams import Inputs
from lfm2gguf.crew import Crew

ROWS, COLUMNS = 96, 640  # more than one panel


def blocks(*, joins: bool) -> tuple[list[Inputs], np.ndarray]:
    """Inputs in blocks, a weight; the checkpoint's input differs by some percent."""
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((COLUMNS, COLUMNS)) / 8
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32) / 16
    found = []
    for tokens in (700, 512, 900):
        y = (rng.standard_normal((tokens, COLUMNS)) @ mix).astype(np.float32)
        x = y + 0.05 * rng.standard_normal(y.shape).astype(np.float32)
        lost = 0.1 * rng.standard_normal((tokens, ROWS)).astype(np.float32)
        wanted = x @ weight.T + lost
        found.append(Inputs(y, wanted=wanted) if joins else Inputs(y, x))
    return found, weight


@pytest.mark.parametrize("joins", [False, True], ids=["inside", "joins the residual"])
def test_targets_make_up_for_what_was_lost(joins: bool) -> None:
    inputs, weight = blocks(joins=joins)
    y = np.concatenate([b.y for b in inputs]).astype(np.float64)
    if joins:
        output = np.concatenate([b.wanted for b in inputs if b.wanted is not None])
    else:
        output = np.concatenate([b.x for b in inputs if b.x is not None]) @ weight.T
    mean = y.T @ y / len(y)
    damped = mean + 0.1 * mean.diagonal().mean() * np.eye(COLUMNS)
    lost = (output - y @ weight.T).T @ y / len(y)
    expected = weight + CORRECTION * np.linalg.solve(damped, lost.T).T

    made = []
    for threads in (1, 3):
        with Crew(threads) as crew:
            moments = gather(iter(inputs), COLUMNS, crew)
            np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-5)
            lacking = moments.lacking({"w": weight}, crew)
            damp(moments.mean, 0.1)
            triangle = factor(moments.mean, crew)
            [(_, target)] = targets({"w": weight}, lacking, moments.joins, triangle, crew)
        change = np.abs(expected - weight).max()
        np.testing.assert_allclose(target.T, expected, atol=1e-3 * change)
        made.append(target)
    assert made[0].tobytes() == made[1].tobytes(), "threads change no bit"


def test_few_tokens_fall_back_to_the_layers() -> None:
    """An expert of 64 columns: with none of its tokens the layer's, with enough its own."""
    rng = np.random.default_rng(2)
    layer = gather([Inputs(rng.standard_normal((500, 64)).astype(np.float32))], 64)
    for tokens, share in ((0, 1.0), (16, 0.75), (64, 0.0), (100, 0.0)):
        y = 3 * rng.standard_normal((tokens, 64)).astype(np.float32)
        own = gather([Inputs(y, y + 1)], 64)
        expected = (1 - share) * own.mean + share * layer.mean
        cross = own.cross
        mixed = Moments(own.mean.copy(), None if cross is None else cross.copy(), False, tokens)
        assert mixed.missing == share
        mixed.towards(layer)
        np.testing.assert_allclose(mixed.mean, expected, rtol=1e-5, atol=1e-6)
        if cross is not None:
            np.testing.assert_allclose(mixed.cross, (1 - share) * cross, rtol=1e-6)
