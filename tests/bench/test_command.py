"""``lfm2gguf bench`` as a person, a pipe and a signal see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.fake_server import Behaviour, serving
from tests.bench.test_reports import made, saved
from tests.cli.command import COMMAND, refusal, run
from tests.making.models import tiny_gguf

QUICK = ("--device", "cpu", "--threads", "1", "--no-probes", "--warmups", "1", "--runs", "2")


@pytest.mark.slow
def test_a_file_in_every_form(tmp_path: Path) -> None:
    forms = ("json", "csv", "markdown", "html")
    targets = [
        word
        for form in forms
        for word in (f"--{form}{'-file' * (form == 'json')}", tmp_path / f"report.{form}")
    ]
    cells = ("--contexts", "32,64", "--workloads", "chat", "--concurrency", "1,2")
    done = run("bench", tiny_gguf(), *QUICK, *cells, *targets)
    assert done.code == 0, done.err
    assert "Speed over depth" in done.out
    assert "Workloads" in done.out
    assert "\x1b" not in done.out
    assert "chat  50%  6/12 runs" in done.err
    assert "defeated" in done.err
    value = json.loads((tmp_path / "report.json").read_text("utf-8"))
    labels = [(row["name"], row["concurrency"]) for row in value["subjects"][0]["rows"]]
    assert labels == [("32", 1), ("64", 1), ("chat", 1), ("chat", 2)]
    assert all((tmp_path / f"report.{form}").stat().st_size > 500 for form in forms)


def test_json_on_standard_output_is_alone_there() -> None:
    done = run("bench", tiny_gguf(), *QUICK, "--suite", "depth", "--contexts", "32", "--json")
    assert done.code == 0
    assert json.loads(done.out)["report"] == "lfm2gguf bench"


def test_an_endpoint() -> None:
    pytest.importorskip("httpx", reason="httpx (the extra bench) is not installed")
    with serving(Behaviour(cached=3)) as url:
        done = run("bench", "--endpoint", url, *QUICK[4:], "--suite", "workloads")
    assert done.code == 0, done.err
    assert "prompt tokens that came from a cache: 3 at most" in done.err
    assert "fake" in done.out
    assert "x4" in done.err


def test_reports_side_by_side(tmp_path: Path) -> None:
    one = saved(made(), tmp_path / "a.json")
    other = saved(made((70, 71, 72), "B.gguf"), tmp_path / "b.json")
    done = run("bench", "--compare", one, other)
    assert done.code == 0, done.err
    assert "71.0 ×1.37" in done.out
    value = json.loads(run("bench", "--compare", one, other, "--json").out)
    assert [f["exceeds_spread"] for f in value["figures"]][-1] is True
    beside = run("bench", one, "--compare", "published")
    assert "LFM2-1.2B, Ryzen AI 7 350 (NPU)" in beside.out
    assert "32k" in beside.out


def test_a_file_beside_the_published_tables(tmp_path: Path) -> None:
    done = run(
        "bench", tiny_gguf(), "--compare", "published", *QUICK, "--suite", "workloads",
        "--workloads", "chat", "--html", tmp_path / "page.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "RTX 3090" in done.out
    assert "RTX 3090" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a GGUF file"),
        (("none.gguf",), "no such file"),
        (("none.gguf", "--contexts", "4x"), "such as 4k"),
        (("none.gguf", "--contexts", ""), "such as 4k"),
        (("none.gguf", "--concurrency", "two"), "number of requests"),
        (("none.gguf", "--concurrency", ""), "number of requests"),
        (("none.gguf", "--workloads", ""), "unknown; choose"),
        (("none.gguf", "--html", "none/page.html"), "no such folder"),
        (("--compare", "none.json"), "cannot be read"),
        (("--compare",), "give a GGUF file"),
        (("--endpoint", "nonsense"), "not an address"),
        (("a.gguf", "b.gguf", "--endpoint", "http://127.0.0.1:9"), "no such file"),
        (("--endpoint", "http://127.0.0.1:9"), "cannot be reached"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal("bench", *arguments, within=tmp_path)


def test_one_report_is_refused(tmp_path: Path) -> None:
    one = saved(made(), tmp_path / "a.json")
    assert "two reports" in refusal("bench", "--compare", one, within=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    command = [*COMMAND, "bench", str(tiny_gguf()), *QUICK, "--json-file", str(target)]
    command += ["--suite", "workloads", "--workloads", "chat,agent", "--concurrency", "1,16"]
    command += ["--runs", "30", "--warmups", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        assert any(line.startswith("chat x16 ") for line in process.stderr)  # chat is whole
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    value = json.loads(target.read_text("utf-8"))
    assert value["subjects"][0]["rows"][0]["runs"] == 30
    assert "agent, agent x16" in value["cut"]
    assert "interrupted" in said


@pytest.mark.slow
def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "examples" / "bench" / "README.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    exec(compile(code, page.name, "exec"), {"MODEL": os.fspath(tiny_gguf())})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "128", "256", "chat",
    ]  # fmt: skip
