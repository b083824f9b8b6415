"""The reference's logits, computed once for several files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm2gguf.verification.material.texts import Sample
from lfm2gguf.verification.measure import scorers
from lfm2gguf.verification.measure.scorers import LogitsStore, NumpyScorer

VOCABULARY = 11


class Head:
    """Logits of states, counted."""

    def __init__(self) -> None:
        self.weights = SimpleNamespace(vocabulary=VOCABULARY)
        self.computed = 0
        self.matrix = np.random.default_rng(0).standard_normal((5, VOCABULARY), np.float32)

    def logits(self, states: Any, out: Any) -> Any:
        self.computed += len(states)
        return np.matmul(states, self.matrix, out=out)


@pytest.mark.parametrize(
    ("room", "again"), [(1 << 20, 0), (4 * VOCABULARY * 7, 3), (0, 10)], ids=["all", "some", "none"]
)
def test_kept_logits_are_those_computed(
    room: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "KEPT_BYTES", room)
    ids = np.arange(9, dtype=np.int32)
    samples = [Sample(ids, np.arange(1, 8)), Sample(ids, np.arange(2, 5))]
    states = np.random.default_rng(1).standard_normal((10, 5), np.float32)
    head, store = Head(), LogitsStore()
    model: Any = head
    passes = []
    for _ in range(2):
        scorer = NumpyScorer(model, samples, states, store)
        passes.append(np.concatenate([scorer.logits(i, 0, 9).copy() for i in range(2)]))
    store.close()
    np.testing.assert_array_equal(passes[0], states @ head.matrix)
    np.testing.assert_array_equal(passes[1], passes[0])
    assert head.computed == 10 + again


def test_a_full_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scorers.tempfile, "TemporaryFile", full)  # type: ignore[attr-defined]
    store, out = LogitsStore(), np.zeros((2, 3), np.float32)
    store.keep((0, 0), out)
    assert not store.load((0, 0), out)
    store.close()
