"""Scratch folders: gone on leaving, and those of killed runs by the next run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lfm2gguf.storage import partial, scratch, scratch_folder, write_whole

KILLED = """
import os, signal
from lfm2gguf.storage import scratch, scratch_folder
os.environ["LFM2GGUF_CACHE"] = {folder!r}
with scratch_folder() as made:
    (made / "x").write_bytes(bytes(9))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path))
    return tmp_path


def test_it_is_gone_on_leaving(temporary: Path) -> None:
    with scratch_folder() as made:
        (made / "x").touch()
        assert list(temporary.iterdir()) == [made]
    assert not list(temporary.iterdir())


def test_it_is_among_temporary_files_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as made:
        assert made.parent == tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_a_killed_run_left_goes_and_what_runs_stays(temporary: Path) -> None:
    code = KILLED.format(folder=str(temporary))
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    (left,) = temporary.iterdir()
    other = temporary / "lfm2gguf-scratch-x"
    other.symlink_to(left)  # a link is nobody's folder
    with scratch_folder() as one, scratch_folder() as two:
        assert {*temporary.iterdir()} == {one, two, other}


def test_a_file_is_written_into_it_at_once(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that says that a run uses the folder is not the one that writers take turns by."""

    def waits(seconds: float) -> None:
        raise AssertionError("it waits for somebody")

    monkeypatch.setattr(partial.time, "sleep", waits)
    with scratch_folder() as made:
        write_whole(made / "x", b"1")


def test_interrupted_while_it_is_made(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> bool:
        assert list(temporary.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(scratch, "locked", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_folder():
        pass
    assert not list(temporary.iterdir())
