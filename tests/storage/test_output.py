"""Whatever ends a writer in the middle: its target is as it was before."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lfm2gguf.errors import OutputError
from lfm2gguf.rendering import check_targets, write_targets
from lfm2gguf.storage import check_target, create, partial, target_of, write_whole

# Each writes its target, or fails to, as the product does it.
WRITERS = {
    "any file": "storage.write_whole(target, 'x' * 100, overwrite=True)",
    "export": "Export('ollama', 'm', 'x' * 100, {}).write(target, overwrite=True)",
    "report of verify": "verify.write_reports([], {'json': target})",
    "baseline": "verify.write_reports([], {'baseline': target})",
    "report of bench": "bench.write([Report(())], {'csv': target})",
    "cache": "cache.store(target.stem, numpy.zeros((9, 9), numpy.float32))",
    "GGUF": "lay_out({}, [TensorSpec('a', GGMLType.F32, (99,))]).create(target, overwrite=True)"
    ".__enter__()",
}
IMPORTS = """
import os, resource, sys
from pathlib import Path
import numpy
from lfm2gguf import storage
from lfm2gguf.bench.report import files as bench
from lfm2gguf.bench.report.data import Report
from lfm2gguf.export.programs import Export
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import TensorSpec, lay_out
from lfm2gguf.verification.material import cache
from lfm2gguf.verification.report import files as verify
target = Path(sys.argv[1])
os.environ["LFM2GGUF_CACHE"] = str(target.parent)
"""


def child(code: str, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IMPORTS + code, str(target)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_fails_in_the_middle(writer: str, tmp_path: Path) -> None:
    """The system ends every file at 20 bytes, as a full disk would."""
    pytest.importorskip("resource", reason="needs limits as POSIX has them")
    limited = "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n" + WRITERS[writer]
    target = tmp_path / "target.npy"
    for before in ([], ["precious"]):
        for text in before:
            target.write_text(text)
        done = child(limited, target)
        assert [path.read_text() for path in tmp_path.iterdir()] == before, done.stderr
        assert writer == "cache" or "target.npy: cannot be written (File too large)" in done.stderr


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "GGUF"])
def test_without_the_limit_the_file_is_there_alone(writer: str, tmp_path: Path) -> None:
    mine = tmp_path / "target.npy.partial"  # a name that a writer might think of
    mine.write_text("mine")
    done = child(WRITERS[writer], tmp_path / "target.npy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target.npy").stat().st_size > 20
    assert mine.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_exception_in_the_middle(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("before")

    def halfway() -> None:
        with create(target, overwrite=True) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        halfway()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_kill_in_the_middle(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("before")
    code = """
with storage.create(target, overwrite=True) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""
    assert child(code, target).returncode == -signal.SIGKILL
    assert target.read_text() == "before"
    (left,) = tmp_path.glob("*.partial")
    assert target_of(left) == target


def test_the_temporary_name_is_another_each_time(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with create(tmp_path / "a", overwrite=True) as partial:
            assert partial.parent == tmp_path
            names.add(partial.name)
    assert len(names) == 3


def test_what_cannot_be_a_target(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    for target, said in {
        tmp_path: "is a folder",
        tmp_path / "a": "exists already; give overwrite=True",
        tmp_path / "absent" / "a": "no such folder",
        Path("/dev/null"): "is a device or a pipe",
    }.items():
        with pytest.raises(OutputError, match=said):
            check_target(target)
        with pytest.raises(OutputError, match=said):
            write_whole(target, "x")
    check_target(tmp_path / "a", overwrite=True)
    with pytest.raises(OutputError, match=r"device or a pipe.* \(the json report\)"):
        check_targets({"csv": None, "html": Path("-"), "json": Path("/dev/null")})
    assert Path("/dev/null").is_char_device()


def test_reports_go_to_files_or_are_handed_back(tmp_path: Path) -> None:
    targets = {"a": tmp_path / "a", "b": Path("-"), "c": None, "d": Path("-")}
    printed = write_targets(targets, lambda kind, _: kind if kind == "b" else kind.encode())
    assert printed == "bd"
    assert (tmp_path / "a").read_text() == "a"


def test_interrupted_while_the_temporary_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and nobody has been told its name yet."""

    def interrupted(descriptor: int) -> bool:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            assert list(tmp_path.iterdir())
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(partial, "locked", interrupted)
    with pytest.raises(KeyboardInterrupt), create(tmp_path / "target"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_name_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no file's name"):
        write_whole(tmp_path / "a\0b", "x")
