"""The child process of a first load: when it is started, what it says, and that it never stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf import Runner, convert
from lfm2gguf.errors import GGUFError, Lfm2ggufError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.loadable import Trial, check_loadable, child, trial
from tests.doctor.operations import Change, rewrite

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

LOADS = "import os, sys; sys.stdin.readline(); os.write(1, b'loaded\\n'); "


class Recorded(subprocess.Popen[bytes]):
    """Processes in the order in which they were started."""

    all: list[Recorded]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[call-overload]
        self.all.append(self)


@pytest.fixture(scope="module")
def sound(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    return convert(small, folder / "sound.gguf", "F32", jobs=1).files[0].path


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recorded]]:
    """The children of a test, none of which may be there after it."""
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(trial.VARIABLE)
    monkeypatch.setattr(Recorded, "all", [], raising=False)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    yield Recorded.all
    assert all(process.returncode is not None for process in Recorded.all)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code that the child runs instead of loading anything."""
    monkeypatch.setattr(child, "__file__", str(tmp_path / "child.py"))
    return tmp_path / "child.py"


def test_a_file_that_is_known_starts_none(sound: Path, started: list[Recorded]) -> None:
    for _ in range(2):
        Runner(sound, device="cpu").close()
        assert len(started) == 1


def test_another_header_of_the_same_size_and_time(
    sound: Path, tmp_path: Path, started: list[Recorded]
) -> None:
    path = rewrite(sound, tmp_path / "a.gguf", Change())
    times = path.stat()
    check_loadable(GGUFFile.open(path))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"general.name", b"general.nama", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(2):
        check_loadable(GGUFFile.open(path))
        assert len(started) == 2


def test_a_file_that_is_refused(tmp_path: Path, started: list[Recorded]) -> None:
    """Its child has begun to load the library, and never learns of the file."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF, or not")
    with pytest.raises(GGUFError):
        Runner(tmp_path / "a.gguf")
    assert len(started) == 1


@pytest.mark.parametrize("name", ["none.gguf", "."])
def test_what_is_no_file_starts_none(name: str, tmp_path: Path, started: list[Recorded]) -> None:
    with pytest.raises(Lfm2ggufError):
        Runner(tmp_path / name)
    assert not started


def test_it_begins_before_the_header_is_read(sound: Path, started: list[Recorded]) -> None:
    with Trial(sound) as first:
        assert len(started) == 1
        first.start(GGUFFile.open(sound))
        first.loaded()
        assert started[0].returncode is None  # it has not ended: it computes
        first.computed()


def test_a_crash_while_it_computes(sound: Path, plays: Path) -> None:
    plays.write_text(LOADS + "os.abort()")
    with Trial(sound) as first:
        first.start(GGUFFile.open(sound))
        first.loaded()
        with pytest.raises(GGUFError, match=r"ends the process with it \(SIGABRT\)"):
            first.computed()
    with pytest.raises(GGUFError, match="SIGABRT"):  # it is not remembered
        Runner(sound, device="cpu")


def test_a_child_that_never_ends(sound: Path, plays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    plays.write_text(LOADS + "import time; time.sleep(600)")
    with pytest.raises(GGUFError, match=r"llama\.cpp did not load it in \d s"):
        check_loadable(GGUFFile.open(sound))


def test_a_child_that_floods(sound: Path, plays: Path, started: list[Recorded]) -> None:
    plays.write_text("import os; [os.write(2, bytes(9999)) for _ in range(99)]; " + LOADS)
    check_loadable(GGUFFile.open(sound))
    assert started[0].returncode == 0


@pytest.mark.parametrize("code", ["raise OSError", "import sys; sys.exit(0)"])
def test_what_the_child_cannot_do_is_no_verdict(code: str, sound: Path, plays: Path) -> None:
    plays.write_text(code)
    Runner(sound, device="cpu").close()


def test_no_process_can_be_started(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    Runner(sound, device="cpu").close()
