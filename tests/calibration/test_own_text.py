"""What the checkpoint writes itself: its own distribution, and the same on every run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.calibration import calibration_material, shares, with_own_text
from lfm2gguf.calibration.material import OWN_TOKENS
from lfm2gguf.calibration.own_text import TEMPERATURES, TOGETHER, _drawn
from lfm2gguf.calibration.store import Store
from lfm2gguf.errors import OptionError
from lfm2gguf.progress import Progress
from lfm2gguf.verification import ReferenceModel, open_reference
from tests.making.checkpoints import Case, config, make
from tests.making.models import EXAMPLE


@pytest.fixture
def small(tmp_path: Path) -> ReferenceModel:
    return open_reference(make(Case(config(), dtype="F32"), tmp_path / "LFM2-Small"))


def text(folder: Path) -> Path:
    path = folder / "t.txt"
    path.write_text("abc def gh. " * 400)
    return path


def test_tokens_are_drawn_as_the_logits_say() -> None:
    """Of many draws each token has the share that its probability at the temperature is."""
    logits = np.array([[0.0, 1.0, 2.0, -1.0, -np.inf]], np.float32)
    draws = (np.arange(4000) + 0.5) / 4000
    for temperature in TEMPERATURES:
        many = np.repeat(logits, len(draws), axis=0)
        found = _drawn(many, np.full(len(draws), temperature), draws)
        chances = np.exp(logits[0].astype(np.float64) / temperature)
        shares = np.bincount(found, minlength=5) / len(draws)
        np.testing.assert_allclose(shares, chances / chances.sum(), atol=1e-3)


def test_the_example_goes_on_as_it_was_taught() -> None:
    """At temperature 1 its words are likelier to itself than at 2, and than words at random."""
    model = open_reference(EXAMPLE)
    material = replace(calibration_material(model, chunks=8), sequences=(), own=8)
    ids = np.stack(with_own_text(model, material).sequences)
    assert ids.shape == (8, OWN_TOKENS)
    assert (ids[:, 0] == model.bos).all()
    positions = np.arange(OWN_TOKENS - 1)
    states = model.forward.states(list(ids), [positions] * len(ids))
    logits = model.forward.logits(states).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -np.take_along_axis(logits, ids[:, 1:].reshape(-1, 1), axis=1).reshape(len(ids), -1)
    one, _, two, three = loss.mean(axis=1).reshape(2, 4).mean(axis=0)
    assert one < two < three < np.log(model.weights.vocabulary) + 2
    assert one < 4


def test_it_is_the_same_with_any_threads_and_from_a_store(
    small: ReferenceModel, tmp_path: Path
) -> None:
    material = calibration_material(small, [text(tmp_path)], chunks=8, ctx=32)
    material = replace(material, own=TOGETHER + 3)
    one = with_own_text(small, material, threads=1, store=Store(tmp_path / "s"))
    two = with_own_text(small, material, threads=2)
    again = with_own_text(small, material, store=Store(tmp_path / "s"))
    for other in (two, again):
        assert all(map(np.array_equal, one.sequences, other.sequences))
    assert len(one.sequences) == len(material.sequences) + TOGETHER + 3
    assert one.tokens == material.tokens


def test_an_interrupt_does_not_wait_for_whole_texts(small: ReferenceModel, tmp_path: Path) -> None:
    material = calibration_material(small, [text(tmp_path)], chunks=8, ctx=32)
    seen = []

    def interrupted(progress: Progress) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_own_text(small, replace(material, own=4 * TOGETHER), interrupted, threads=2)
    assert len(seen) == 1


def test_how_much_is_asked_for(small: ReferenceModel, tmp_path: Path) -> None:
    material = calibration_material(small, [text(tmp_path)], chunks=16, ctx=32)
    none, _ = shares(small, material, 32, 0)
    twice, _ = shares(small, material, 32, 2)
    assert none.own == 0
    assert with_own_text(small, none) is none
    assert twice.own == 2 * none.tokens // OWN_TOKENS
    for wrong in (-1, 17, float("nan")):
        with pytest.raises(OptionError, match="own_text"):
            shares(small, material, 32, wrong)
