"""The bytes depend on the weights alone: not on jobs, and not on how the work is cut."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import Progress, convert, plan
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.conversion import tasks, write
from lfm2gguf.errors import OptionError, TensorError
from lfm2gguf.storage import rows
from tests.golden.summary import digest
from tests.making.checkpoints import config, save, weights

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]


def digests(source: Path, target: Path, jobs: int, types: list[str] = TYPES) -> dict[str, str]:
    target.mkdir()
    files = convert(source, target, types, jobs=jobs).files
    return {file.type: digest(file.path.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def expected(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(wide, tmp_path_factory.mktemp("expected") / "out", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "tile"), [(5000, 700), (70_000, 4096), (1 << 30, 1 << 30)])
def test_the_cut(
    wide: Path, tmp_path: Path, expected: dict[str, str], task: int, tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    types = ["Q4_K_M"] if task < 50_000 else TYPES  # a few rows at a time are slow
    monkeypatch.setattr(tasks, "TASK_WEIGHTS", task)
    monkeypatch.setattr(rows, "TILE_WEIGHTS", tile)
    found = digests(wide, tmp_path / "out", 1, types)
    assert found == {type: expected[type] for type in found}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [2, 3])
def test_jobs(
    wide: Path, tmp_path: Path, expected: dict[str, str], jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "WEIGHTS_PER_WORKER", 1000)
    monkeypatch.setattr(tasks, "TASK_WEIGHTS", 50_000)
    assert digests(wide, tmp_path / "out", jobs) == expected


def test_small_models_need_one_process() -> None:
    assert write._jobs(8, 1000) == 1
    assert write._jobs(8, write.WEIGHTS_PER_WORKER * 3) == 3
    assert write._jobs(2, write.WEIGHTS_PER_WORKER * 3) == 2
    with pytest.raises(OptionError, match=r"jobs \(--jobs\) is 0"):
        write._jobs(0, 1000)


def test_a_worker_says_what_is_wrong(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "WEIGHTS_PER_WORKER", 1000)
    spoilt = weights(config())
    spoilt["model.embed_tokens.weight"][299, 63] = np.inf
    save(checkpoint, spoilt)
    with pytest.raises(TensorError, match=r"embed_tokens.weight' holds inf at row 299, column 63"):
        convert(checkpoint, tmp_path / "f.gguf", jobs=2)
    assert not list(tmp_path.glob("f.gguf*"))


def test_progress_counts_every_weight_and_tensor(wide: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    convert(wide, tmp_path, ["Q8_0", "Q4_0"], jobs=1, progress=seen.append)
    tensors = Checkpoint.open(wide).tensors
    assert seen[-1].note.startswith(f"{len(tensors)}/{len(tensors)} tensors, ")
    assert (
        seen[-1].done
        == seen[-1].total
        == sum(np.prod(info.shape, dtype=int) for info in tensors.values())
    )
    done = [progress.done for progress in seen]
    assert done == sorted(set(done))


def test_an_error_in_the_callback_stops_the_conversion(wide: Path, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise RuntimeError("enough")

    for jobs in (1, 2):
        with pytest.raises(RuntimeError, match="enough"):
            convert(wide, tmp_path, jobs=jobs, progress=fail)
    assert not list(tmp_path.iterdir())


def test_conversions_in_threads_leave_others_logging_alone(small: Path, tmp_path: Path) -> None:
    """What SpecialVocab says of them is not shown, and what it says to others is."""
    logger, records = logging.getLogger("gguf.vocab"), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda i: plan(small, tmp_path / f"{i}.gguf"), range(24)))
    finally:
        logger.removeHandler(handler)
    assert not records
    assert not logger.disabled
    assert not logger.filters
