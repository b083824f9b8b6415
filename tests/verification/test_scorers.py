"""The reference's logits, computed once for several files."""

from __future__ import annotations

import tempfile
from pathlib import Path
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


def test_they_are_kept_in_the_folder_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files are held in memory where /tmp is a tmpfs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    folder = tmp_path / "not" / "yet"
    monkeypatch.setenv("LFM2GGUF_CACHE", str(folder))
    store, kept, out = LogitsStore(), np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    assert not folder.exists()  # before there is anything to keep
    store.keep((0, 0), kept)
    assert store.load((0, 0), out)
    np.testing.assert_array_equal(out, kept)
    store.close()
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "file" / "cache"))
    store, out = LogitsStore(), np.zeros((2, 3), np.float32)
    store.keep((0, 0), out)
    assert not store.load((0, 0), out)
    store.close()


def test_a_full_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(dir: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scorers.tempfile, "TemporaryFile", full)  # type: ignore[attr-defined]
    store, out = LogitsStore(), np.zeros((2, 3), np.float32)
    store.keep((0, 0), out)
    assert not store.load((0, 0), out)
    store.close()
