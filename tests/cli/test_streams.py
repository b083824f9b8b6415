"""Standard streams that are closed or full, and names that are no UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.command import COMMAND, run
from tests.making.models import tiny_gguf

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="closes descriptors in a shell")


def shell(
    words: list[object], redirections: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose streams a shell has redirected."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, *map(str, words)],
        env=os.environ | variables, capture_output=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_none(closed: str, small: Path, tmp_path: Path) -> None:
    """And no file gets their numbers, which C code prints to."""
    target = tmp_path / "a.gguf"
    done = shell(["convert", small, "-t", "Q8_0", "-o", target], closed)
    assert (done.returncode, b"fault" in done.stderr) == (0, False), done
    assert run("convert", small, "-t", "Q8_0", "-qo", tmp_path / "b.gguf").code == 0
    assert target.read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.slow
def test_a_question_from_a_stream_that_is_closed() -> None:
    words: list[object] = ["run", tiny_gguf(), "-n", "1", "--device", "cpu"]
    done = shell(words, "<&-")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done
    assert b"give -p TEXT" in done.stderr
    assert shell([*words, "-p", "Hi"], "<&- >&- 2>&-").returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])  # "": Python writes what it holds at its end
@pytest.mark.parametrize("full", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_streams_that_take_nothing_are_bad_input(
    full: str, unbuffered: str, bf16_gguf: Path
) -> None:
    """Exit code 1 would say that a check failed."""
    done = shell(["inspect", bf16_gguf], full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2, done
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["inspect"], ["inspect", "--json"], ["doctor"], ["--help"]])
def test_what_nobody_reads_any_more(words: list[str], unbuffered: str, bf16_gguf: Path) -> None:
    """As in ``| head -1``: the exit code of SIGPIPE, and no word."""
    reader, writer = os.pipe()
    os.close(reader)
    files = [] if words == ["--help"] else [str(bf16_gguf)]
    try:
        done = subprocess.run(
            [*COMMAND, *words, *files], stdout=writer, stderr=subprocess.PIPE, timeout=100,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_name_that_is_no_utf_8(wide: Path, bf16_gguf: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.gguf"))
    path.write_bytes(bf16_gguf.read_bytes())
    reports = {kind: tmp_path / f"a.{kind}" for kind in ("html", "junit", "markdown")}
    words = [word for kind, file in reports.items() for word in (f"--{kind}", file)]
    done = run(
        "verify", path, "-r", wide, "--engine", "numpy", "--chunks", 1, *words,
        "--json-file", tmp_path / "a.json",
    )  # fmt: skip
    assert done.code == 0, done
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["files"][0]["file"] == path.name
    ElementTree.parse(reports["junit"])
    for kind in ("html", "markdown"):
        assert r"a\udcff.gguf" in reports[kind].read_text("utf-8")


def test_a_modelfile_names_the_file_byte_for_byte(tmp_path: Path) -> None:
    copy = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.gguf"))
    copy.write_bytes(tiny_gguf().read_bytes())
    assert run("export", "ollama", copy, "-o", tmp_path / "Modelfile").code == 0
    assert (tmp_path / "Modelfile").read_bytes().startswith(b"FROM " + os.fsencode(copy) + b"\n")
    lines = tmp_path / "a\nPARAMETER seed 1\n.gguf"
    lines.write_bytes(tiny_gguf().read_bytes())
    refused = run("export", "ollama", lines, "-o", tmp_path / "Other")
    assert (refused.code, "rename the file" in refused.err) == (2, True)


@pytest.mark.slow
def test_a_mark_before_a_question_is_no_part_of_it() -> None:
    """PowerShell puts a byte-order mark before what it pipes."""
    words = [*COMMAND, "run", str(tiny_gguf()), "-n", "1", "--device", "cpu", "--json"]
    counts = {
        json.loads(subprocess.check_output(words, input=mark + b"Hi\r\n", timeout=100))["usage"][
            "prompt_tokens"
        ]
        for mark in (b"", b"\xef\xbb\xbf")
    }
    assert len(counts) == 1
