"""Where a model goes, and files refused before C code sees them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from lfm2gguf.errors import DeviceError, GGUFError, Lfm2ggufError, OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Device
from lfm2gguf.llamacpp.device import MOST_THREADS
from lfm2gguf.llamacpp.library import captured_log
from lfm2gguf.llamacpp.machine import available_memory
from lfm2gguf.runner import Runner
from lfm2gguf.runner.placement import (
    MARGIN,
    cache_bytes,
    check_file,
    check_memory,
    layers_that_fit,
    place,
)
from lfm2gguf.verification import Engine
from tests.making.models import tiny_gguf


def device(backend: str, kind: str = "gpu", free: int = 1, name: str = "") -> Device:
    return Device(name or backend, f"{backend} card", backend, kind, free, free, 0)


def test_layers_are_counted_by_what_fits() -> None:
    file = check_file(tiny_gguf())
    blocks = int(str(file.get("lfm2.block_count")))
    whole = sum(info.nbytes for info in file.tensors.values())
    assert layers_that_fit(file, [device("CUDA", free=MARGIN + whole)], 0) == blocks + 1
    assert 0 < layers_that_fit(file, [device("CUDA", free=MARGIN + whole - 1)], 0) < blocks + 1
    assert layers_that_fit(file, [device("CUDA", free=MARGIN + whole)], 10**9) < blocks + 1
    assert layers_that_fit(file, [device("CUDA", free=0)], 0) == 0


def test_how_many_layers_go_where() -> None:
    file = check_file(tiny_gguf())
    whole = int(str(file.get("lfm2.block_count"))) + 1
    roomy, full = device("CUDA", free=1 << 40), device("CUDA", free=0)
    assert place(file, [], None, "auto", 512) == ([], 0)
    assert place(file, [roomy], None, "auto", 512) == ([roomy], whole)
    assert place(file, [roomy], 3, "cuda", 512) == ([roomy], 3)
    assert place(file, [roomy], 0, "cuda", 512) == ([], 0)
    assert place(file, [full], None, "auto", 512) == ([], 0)
    with pytest.raises(DeviceError, match="cuda: no layer fits"):
        place(file, [full], None, "cuda", 512)
    some = device("CUDA", free=MARGIN + sum(info.nbytes for info in file.tensors.values()))
    assert 0 < place(file, [some], None, "cuda", 4096)[1] < whole  # the context needs room too


def other(path: Path, architecture: str) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_no_model_is_refused_in_python(tmp_path: Path) -> None:
    text = tmp_path / "a.gguf"
    text.write_text("not a model")
    empty = tmp_path / "b.gguf"
    empty.touch()
    cases: list[tuple[Path, type[Lfm2ggufError], str]] = [
        (tmp_path / "none.gguf", GGUFError, "no such file"),
        (tmp_path, GGUFError, "folder"),
        (text, GGUFError, "not a GGUF"),
        (empty, GGUFError, "not a GGUF"),
        (other(tmp_path / "c.gguf", "llama"), UnsupportedError, "'llama'"),
        (other(tmp_path / "d.gguf", "clip"), UnsupportedError, "projector"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            Runner(path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.99])
def test_truncated_at_any_point(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.gguf"
    data = tiny_gguf().read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(GGUFError, match="truncated"):
        Runner(path)


def test_a_tensor_too_few_is_refused_by_the_library_and_reported(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="lfm2"):
        Runner(other(tmp_path / "few.gguf", "lfm2"), device="cpu", context=64)


def test_a_model_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    shutil.copy(other(tmp_path / "small.gguf", "lfm2"), path)
    with pytest.raises(GGUFError, match=r"300\.0 GB of memory.*1\.0 GB are available"):
        check_memory(path, 300 * 10**9, 10**9)
    check_memory(path, 10**9, 10**9)
    check_memory(path, 10**9, None)


def test_a_runner_asks_for_the_memory_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    available = available_memory()
    assert available is None or available > 10**8
    monkeypatch.setattr("lfm2gguf.runner.opening.available_memory", lambda: 1000)
    with pytest.raises(GGUFError, match="are available: close other programs"):
        Runner(tiny_gguf(), device="cpu")


@pytest.mark.parametrize(
    ("mmap", "free", "mapped"),
    [
        (None, 1 << 40, False),
        (None, 40 << 20, True),  # more than a quarter of it
        (None, None, True),
        (True, 1 << 40, True),
        (False, 40 << 20, False),
    ],
)
def test_weights_are_read_if_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mmap: bool | None,
    free: int | None,
    mapped: bool,
) -> None:
    monkeypatch.setattr("lfm2gguf.runner.opening.available_memory", lambda: free)
    caplog.set_level("DEBUG", "lfm2gguf.llamacpp")  # without, no load reports where weights are
    with Runner(tiny_gguf(), device="cpu", context=64, mmap=mmap) as lfm:
        assert ("CPU_Mapped" in lfm.scheduler._model.buffers) == mapped


@pytest.mark.parametrize("threads", [0, -1, MOST_THREADS + 1, 100_000])
def test_threads_that_ggml_has_no_room_for(threads: int) -> None:
    """100,000 ended the process (SIGSEGV)."""
    with pytest.raises(OptionError, match=rf"threads \(--threads\) is {threads}"):
        Runner(tiny_gguf(), device="cpu", threads=threads)
    with pytest.raises(OptionError, match=rf"threads \(--threads\) is {threads}"):
        Engine(threads=threads).resolved()


@pytest.mark.parametrize("context", [1 << 31, 1 << 32, 10**20])
def test_a_context_that_c_would_count_otherwise(context: int) -> None:
    """2**32 became 0, which is the trained one."""
    with pytest.raises(OptionError, match=f"context is {context}"):
        Runner(tiny_gguf(), device="cpu", context=context)


def test_a_context_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error before the operating system ends the process."""
    monkeypatch.setattr("lfm2gguf.runner.opening.available_memory", lambda: 1 << 28)
    with pytest.raises(OptionError, match=r"context is 1000000: it needs 3\.1 GB of memory"):
        Runner(tiny_gguf(), device="cpu", context=1_000_000)
    with Runner(tiny_gguf(), device="cpu", context=1024) as lfm:
        assert lfm.context_size == 1024


def test_the_memory_of_a_context_is_what_llama_cpp_takes() -> None:
    file = GGUFFile.open(tiny_gguf())
    with captured_log() as log, Runner(tiny_gguf(), device="cpu", context=65_536, lookup=0):
        pass
    [kept] = [line for line in log if "llama_kv_cache: size" in line]
    mebibytes = float(kept.split("size =")[1].split("MiB")[0])
    mask = 2 * 512 * 65_536
    assert cache_bytes(file, 65_536) - mask == mebibytes * (1 << 20)
