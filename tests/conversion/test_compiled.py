"""Conversion by compiled kernels, in threads: the same files, and the same ends."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import convert
from lfm2gguf.conversion import tasks, write
from lfm2gguf.errors import TensorError
from lfm2gguf.progress import Progress
from lfm2gguf.quants import kernels
from tests.making.checkpoints import config, save, weights

pytestmark = [
    pytest.mark.slow,  # numba compiles
    pytest.mark.skipif(bool(kernels.why_not_compiled()), reason=str(kernels.why_not_compiled())),
]


@pytest.fixture(autouse=True)
def numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")
    monkeypatch.setattr(write, "TASK_WEIGHTS", 1000)
    monkeypatch.setattr(tasks, "TASK_WEIGHTS", 1000)


def test_the_files_are_those_of_numpy(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = ["BF16", "Q8_0", "Q4_K_M", "Q5_K_S", "Q6_K", "Q4_0"]
    folders = [tmp_path / name for name in ("numba", "numpy")]
    found = []
    for folder in folders:
        monkeypatch.setenv(kernels.VARIABLE, folder.name)
        folder.mkdir()
        files = convert(wide, folder, types, jobs=3).files
        assert {file.kernels for file in files} == {folder.name}
        assert files[0].to_json()["kernels"] == folder.name
        found.append([file.path.read_bytes() for file in files])
    assert found[0] == found[1]


def test_a_thread_says_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    spoilt = weights(config())
    spoilt["model.embed_tokens.weight"][299, 63] = np.inf
    save(checkpoint, spoilt)
    with pytest.raises(TensorError, match=r"embed_tokens.weight' holds inf at row 299, column 63"):
        convert(checkpoint, tmp_path / "f.gguf", jobs=2)
    assert not list(tmp_path.glob("f.gguf*"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_thread_and_no_file_stays_after_an_interruption(
    error: type[BaseException], wide: Path, tmp_path: Path
) -> None:
    def fail(now: Progress) -> None:
        if now.stage == "writing":
            raise error("enough")

    before = threading.active_count()
    with pytest.raises(error, match="enough"):
        convert(wide, tmp_path, "Q8_0", jobs=3, progress=fail)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before
