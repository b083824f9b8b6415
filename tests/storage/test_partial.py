"""What killed runs leave goes with the next run; what is being written stays, and is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf.errors import OutputError
from lfm2gguf.storage import create, write_whole

WRITER = """
import sys
from pathlib import Path
from lfm2gguf.storage import create
with create(Path(sys.argv[1])) as partial:
    with partial.open("wb") as again:  # a worker's opening, closed before the writer ends
        again.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of writing ``a``; it ends with its input."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("next_target", ["a", "b"])
def test_what_a_killed_run_leaves(
    writer: subprocess.Popen[str], next_target: str, tmp_path: Path
) -> None:
    writer.kill()
    writer.wait()
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    write_whole(tmp_path / next_target, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [next_target]


def test_what_is_being_written(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    write_whole(tmp_path / "b", "whole")
    assert len(list(tmp_path.glob("a.*.partial"))) == 1
    with pytest.raises(OutputError, match="a: another run is writing it now"):
        write_whole(tmp_path / "a", "other", overwrite=True)
    writer.communicate("")
    assert (tmp_path / "a").read_text() == "half"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("character", ["a", "\u00e9", "\U0001f642"])
def test_any_name_that_a_file_may_have(character: str, tmp_path: Path) -> None:
    """Names of up to 255 bytes leave no room for the end of a temporary one."""
    size = len(character.encode())
    for n_bytes in (238, 239, 250, 255):
        target = tmp_path / (character * (n_bytes // size) + "x" * (n_bytes % size))
        with create(target) as partial:
            assert len(partial.name.encode()) <= 255
            partial.write_text("half")
            other = target.with_name(target.name[:-1] + "y")
            write_whole(other, "whole")  # begins with the same
            with pytest.raises(OutputError, match="another run is writing it now"):
                write_whole(target, "other", overwrite=True)
        assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["half", "whole"]
        target.unlink()
        other.unlink()
    with pytest.raises(OutputError, match="File name too long"):
        write_whole(tmp_path / ("x" * 256), "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_run_leaves_of_a_long_name(tmp_path: Path) -> None:
    code = WRITER.replace("sys.stdin.read()", "import os; os.kill(os.getpid(), 9)")
    target = tmp_path / ("x" * 255)
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    write_whole(target, "whole")
    assert list(tmp_path.iterdir()) == [target]


def test_of_two_that_begin_together_one_is_the_second(tmp_path: Path) -> None:
    """Both wait for the same moment; whichever is first, one file is written and one refused."""
    pipe, target = subprocess.PIPE, tmp_path / "a"
    code = WRITER.replace("with create", "sys.stdin.readline()\nwith create", 1)
    for _ in range(3):
        both = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(target)], stdin=pipe, stderr=pipe, text=True
            )
            for _ in range(2)
        ]
        for process in both:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate()[1] for process in both]
        # The first may have ended before the second began: then its file is in the way.
        assert sorted(process.returncode for process in both) == [0, 1]
        assert "another run is writing it now" in "".join(said) or "exists already" in "".join(said)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        target.unlink()


def test_what_only_looks_like_a_partial_file(tmp_path: Path) -> None:
    """A name of another form, and what is no file; a link's target is not touched either."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "a.partial").write_text("mine")
    (tmp_path / "a.0123456.partial").write_text("mine")
    (tmp_path / "a.01234567.partial").mkdir()
    if sys.platform != "win32":
        (tmp_path / "b.01234567.partial").symlink_to(tmp_path / "kept")
        os.mkfifo(tmp_path / "c.01234567.partial")
    before = sorted(tmp_path.iterdir())
    write_whole(tmp_path / "z", "whole")
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "z"]
    assert (tmp_path / "kept").read_text() == "kept"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_runs_killed_one_after_another_leave_one(tmp_path: Path) -> None:
    code = WRITER.replace("sys.stdin.read()", "import os; os.kill(os.getpid(), 9)")
    for name in ("a", "b", "a", "c"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
        assert done.returncode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(f"{name}.")
    with create(tmp_path / "a"):
        (own,) = tmp_path.iterdir()
        assert own != left
