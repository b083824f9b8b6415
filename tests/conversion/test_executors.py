"""Writing on an executor's workers: the same bytes, whoever does it, and however often."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert, plan
from lfm2gguf.calibration import calibrate, collect_imatrix
from lfm2gguf.errors import RuntimeFailureError, TensorError
from lfm2gguf.executors import perform, portable, spread
from lfm2gguf.verification import Material, verify
from tests.making.checkpoints import MOE, Case, make
from tests.making.models import EXAMPLE

TYPES = ["Q4_K_M", "Q8_0"]


class Elsewhere(Executor):
    """A worker that shares nothing: it gets bytes, in another folder, and may be lost."""

    def __init__(self, folder: Path, losses: int = 0) -> None:
        self.folder, self.losses, self.done = folder, losses, 0
        self.calls: set[str] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert fn is perform
        payload, call = args
        assert isinstance(payload, bytes)
        assert call not in self.calls
        self.calls.add(call)
        future: Future[Any] = Future()
        before = Path.cwd()
        try:
            os.chdir(self.folder)
            result = fn(payload)
            self.done += 1
            if self.losses:  # after it has written: what it did is done twice
                self.losses -= 1
                raise ConnectionError("the worker is gone")
            future.set_result(result)
        except Exception as error:
            future.set_exception(error)
        finally:
            os.chdir(before)
        return future


def test_relative_paths_and_lost_workers(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(wide, tmp_path, TYPES)
    monkeypatch.chdir(wide.parent)
    (wide.parent / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    executor = Elsewhere(tmp_path / "elsewhere", losses=2)
    made = plan(wide.name, "out", TYPES).write(executor=executor)
    assert executor.done > 10
    for file in made.files:
        assert file.path.read_bytes() == (tmp_path / file.path.name).read_bytes()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_worker_that_is_lost_each_time(wide: Path, tmp_path: Path) -> None:
    executor = Elsewhere(tmp_path, losses=10**6)
    with pytest.raises(RuntimeFailureError, match=r"workers failed .*the worker is gone"):
        plan(wide, tmp_path, "Q8_0").write(executor=executor)
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_comes_back(checkpoint: Path, tmp_path: Path) -> None:
    shards = checkpoint / "model.safetensors"
    data = bytearray(shards.read_bytes())
    data[-2:] = b"\xc0\x7f"  # NaN, in BF16
    shards.write_bytes(data)
    with pytest.raises(TensorError, match="nan"), ThreadPoolExecutor(2) as executor:
        plan(checkpoint, tmp_path, "Q8_0").write(executor=executor)
    assert not list(tmp_path.glob("*.gguf*"))


def test_an_executor_that_was_shut_down(wide: Path, tmp_path: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeFailureError, match="takes no work"):
        plan(wide, tmp_path, "Q8_0").write(executor=executor)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packed = portable((str, Path("a") / "b"))
    monkeypatch.chdir(tmp_path.parent)
    assert perform(packed) == str(tmp_path / "a" / "b")


def test_items_are_taken_as_room_is_made() -> None:
    taken: list[int] = []

    def items() -> Any:
        for i in range(20):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(2) as executor:
        done = spread(executor, abs, items(), "counting", window=3)
        first, _ = next(done)
        assert len(taken) <= 4
        assert {first, *(i for i, _ in done)} == set(range(20))


@pytest.mark.slow
def test_the_matrix_and_the_ladder_on_processes(tmp_path: Path) -> None:
    """Sums and figures are those of one process, to the last bit."""
    text = tmp_path / "text.txt"
    text.write_text((EXAMPLE / "README.md").read_text("utf-8") * 12, "utf-8")
    here = collect_imatrix(EXAMPLE, [text])
    files = [file.path for file in convert(EXAMPLE, tmp_path, TYPES).files]
    material = Material([text], chunks=2)
    judged = verify(files, EXAMPLE, material=material)
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        there = collect_imatrix(EXAMPLE, [text], executor=executor)
        spread_out = verify(files, EXAMPLE, material=material, executor=executor)
    assert here.chunk_count == there.chunk_count > 32  # more than one group
    for name, entry in here.entries.items():
        assert np.array_equal(entry.sums, there.entries[name].sums), name
        assert np.array_equal(entry.counts, there.entries[name].counts), name
    assert [r.candidate for r in spread_out] == [r.candidate for r in judged]
    assert [r.figures for r in spread_out] == [r.figures for r in judged]
    assert all(r.passed for r in spread_out)


@pytest.mark.slow
def test_calibration_on_threads_and_here(tmp_path: Path) -> None:
    """Experts are rounded side by side, and the file is the same."""
    source = make(Case(MOE, dtype="F32"), tmp_path / "LFM2-Moe")
    text = tmp_path / "text.txt"
    text.write_text("abc de fgh. " * 400)
    options: dict[str, Any] = {"texts": [text], "ctx": 32, "chunks": 16}
    calibrate(source, tmp_path / "here.gguf", "Q4_0", **options)
    with ThreadPoolExecutor(3) as executor:
        calibrate(source, tmp_path / "there.gguf", "Q4_0", executor=executor, **options)
    assert (tmp_path / "here.gguf").read_bytes() == (tmp_path / "there.gguf").read_bytes()
