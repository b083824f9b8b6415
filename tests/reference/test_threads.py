"""The states and logits are the same, however many threads share the tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.reference import Reference, Weights, forward
from lfm2gguf.verification import open_reference
from tests.making.checkpoints import MOE, Case, config, make
from tests.making.models import EXAMPLE


def with_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def as_if_held() -> Iterator[int]:
        yield count

    monkeypatch.setattr(forward, "one_thread", as_if_held)


@pytest.mark.parametrize("kind", ["dense", "biased", "experts", "example"])
def test_values_are_those_of_one_thread(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {"dense": config(), "biased": config(conv_bias=True), "experts": MOE}
    source = EXAMPLE if kind == "example" else make(Case(cases[kind], dtype="F32"), tmp_path / "M")
    model = open_reference(source).forward
    monkeypatch.setattr(forward, "THREAD_TOKENS", 32)  # several pieces of few tokens
    random = np.random.default_rng(1)
    sequences = [random.integers(1, 255, n).astype(np.int32) for n in (130, 7, 200)]
    positions = [np.arange(len(ids) // 2, len(ids)) for ids in sequences]
    found = []
    for threads in (1, 2, 3):
        with_threads(threads, monkeypatch)
        states = model.states(sequences, positions)
        found.append((states, model.logits(states)))
    for states, logits in found[1:]:
        # A BLAS may sum few tokens in another order than many: OpenBLAS's kernels for AVX2 do.
        np.testing.assert_allclose(states, found[0][0], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(logits, found[0][1], rtol=1e-4, atol=1e-4)


def test_an_observer_is_called_by_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with_threads(3, monkeypatch)
    callers = set()
    weights = Weights.from_checkpoint(Checkpoint.open(EXAMPLE))
    model = Reference(weights, lambda name, x: callers.add(threading.current_thread()))
    model.states([np.arange(1, 60, dtype=np.int32)], [np.arange(3)])
    assert callers == {threading.current_thread()}


def test_no_position_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_threads(2, monkeypatch)
    model = open_reference(EXAMPLE).forward
    states = model.states([np.arange(1, 9, dtype=np.int32)], [np.arange(0)])
    assert states.shape == (0, model.weights.shapes["model.embed_tokens.weight"][1])
    assert model.logits(states).shape == (0, model.weights.vocabulary)
