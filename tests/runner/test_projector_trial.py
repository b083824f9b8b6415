"""A projector whose parts do not fit is an error before it is loaded here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import Runner
from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType
from lfm2gguf.loadable import Trial
from lfm2gguf.loadable.trial import VARIABLE
from tests.doctor.operations import Change, f32, rewrite

CHANGES = {
    "heads that do not divide": Change(
        {"clip.vision.attention.head_count": Value(ValueType.UINT32, 3)}
    ),
    "a matrix of another shape": Change(tensors={"mm.2.weight": f32(np.zeros((7, 5)))}),
}


@pytest.fixture(autouse=True)
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize("name", CHANGES)
def test_parts_that_do_not_fit(name: str, vision: tuple[Path, Path], tmp_path: Path) -> None:
    """Without the trial each of them ends the process: GGML_ASSERT in ggml.c."""
    path = rewrite(vision[1], tmp_path / "mmproj.gguf", CHANGES[name])
    with pytest.raises(GGUFError, match=r"mmproj\.gguf: llama\.cpp ends .*GGML_ASSERT"):
        Runner(vision[0], mmproj=path, device="cpu")


def test_a_sound_one(vision: tuple[Path, Path]) -> None:
    with Trial(*vision) as trial:
        trial.start(GGUFFile.open(vision[0]))
        trial.computed()
