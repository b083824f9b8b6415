"""The forward pass a token at a time ends where the one over whole sequences does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.crew import ALONE, Crew
from lfm2gguf.errors import TensorError
from lfm2gguf.reference import Decoder, Weights
from lfm2gguf.verification import open_reference
from tests.making.checkpoints import MOE, Case, config, make
from tests.making.models import EXAMPLE


@pytest.mark.parametrize("kind", ["dense", "biased", "experts", "example"])
def test_states_are_those_of_whole_sequences(kind: str, tmp_path: Path) -> None:
    cases = {"dense": config(), "biased": config(conv_bias=True), "experts": MOE}
    source = EXAMPLE if kind == "example" else make(Case(cases[kind], dtype="F32"), tmp_path / "M")
    model = open_reference(source)
    ids = np.random.default_rng(1).integers(1, 255, (3, 24)).astype(np.int32)
    with Crew(2) as crew:
        alone, shared = (Decoder(model.weights, *ids.shape, one) for one in (ALONE, crew))
        found = np.stack([alone.step(column) for column in ids.T], axis=1)
        again = np.stack([shared.step(column) for column in ids.T], axis=1)
    np.testing.assert_array_equal(found, again)
    positions = [np.arange(ids.shape[1])] * len(ids)
    expected = model.forward.states(list(ids), positions).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_damaged_checkpoint_is_refused_at_the_first_token() -> None:
    def read(name: str, start: int, stop: int) -> np.ndarray:
        rows = exact.read(name, start, stop)
        return (
            np.full_like(rows, np.nan) if name.endswith("layers.2.feed_forward.w1.weight") else rows
        )

    exact = open_reference(EXAMPLE).weights
    decoder = Decoder(Weights(exact.config, exact.shapes, read), 2, 4)
    with pytest.raises(TensorError, match="is the checkpoint damaged"):
        decoder.step(np.array([1, 1], np.int32))
