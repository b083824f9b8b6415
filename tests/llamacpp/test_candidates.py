"""The candidates that are found by columns, beside those that a look at every logit finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.llamacpp import Model, Sampler
from lfm2gguf.llamacpp.candidates import promising
from lfm2gguf.options import Options
from tests.making.models import tiny_gguf

from .test_sampling import OFF


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


@given(
    size=st.sampled_from([1, 63, 64, 65, 500, 4096, 5003]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 8.0]),  # from all alike to a few that stand out
    top_k=st.sampled_from([0, 1, 5, 80]),
    min_p=st.sampled_from([0.0, 0.01, 0.15, 1.0]),
    seed=st.integers(0, 1000),
)
def test_nothing_that_can_be_drawn_is_left_out(
    size: int, spread: float, top_k: int, min_p: float, seed: int
) -> None:
    logits = (spread * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)
    most, ids = promising(logits, top_k, min_p)
    assert most == logits.max()
    if ids is None:
        return
    floor = most + np.log(min_p) if min_p else -np.inf
    if top_k:
        floor = np.sort(logits)[-top_k:][0]
    assert (np.diff(ids) > 0).all()
    assert np.isin(np.flatnonzero(logits >= floor), ids).all()


@pytest.mark.parametrize("place", [0, 63, 64, 99])
def test_the_largest_is_nan_where_one_is(place: int) -> None:
    logits = np.zeros(100, np.float32)
    logits[place] = np.nan
    assert np.isnan(promising(logits, 0, 0.1)[0])


@pytest.mark.parametrize("options", [
    {"logit_bias": {3: 2.0, 4: -np.inf}, "repeat_penalty": 1.3, "temperature": 0.0},
    {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "min_p": 0.1},
    {"repeat_penalty": 1.3, "repeat_window": 1, "temperature": 0.0},
    {"repeat_penalty": 1.3, "repeat_window": 3},
    {"min_tokens": 5, "ignore_eos": True},
])  # fmt: skip
def test_the_logits_come_out_as_they_went_in(model: Model, options: dict[str, Any]) -> None:
    """Log-probabilities are of the model's own logits, and are asked for afterwards."""
    sampler = Sampler(model, Options(**(OFF | options)))
    logits = np.random.default_rng(2).standard_normal(model.n_vocab).astype(np.float32)
    before = logits.copy()
    for _ in range(8):
        sampler.sample(logits)
        assert np.array_equal(logits, before)
    logits[:] = before[:] = np.nan
    with pytest.raises(RuntimeFailureError):
        sampler.sample(logits)
    assert np.array_equal(logits, before, equal_nan=True)
    sampler.close()
