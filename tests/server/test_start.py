"""How ``lfm2gguf serve`` starts: the server is imported while the model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import refusal
from tests.making.models import tiny_gguf

OPENED = """
import sys
from lfm2gguf import runner
from lfm2gguf.llamacpp import devices
from lfm2gguf.loadable import check_rules
devices()
before = set(sys.modules)
runner.Runner(sys.argv[1], device="cpu").close()
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_a_load_imports_nothing_that_a_server_may_be_importing() -> None:
    """Two threads that import packages with modules in common may wait for each other."""
    command = [sys.executable, "-c", OPENED, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    of_templates = {"jinja2", "markupsafe"}  # which no server has
    assert not set(done.stdout.split()) - sys.stdlib_module_names - of_templates


ELSEWHERE = "203.0.113.1"  # no address of this machine (RFC 5737): a server ends before it listens
BEGUN = """
import os, signal, sys
from lfm2gguf.llamacpp.huge_pages import HugePages
from lfm2gguf.llamacpp.library import library
from lfm2gguf_cli.main import main
llama = library()
load = llama.llama_model_load_from_file
def loads(*arguments):
    print(*sys.modules, flush=True)
    return load(*arguments)
llama.llama_model_load_from_file = loads
if sys.argv.pop(1) == "interrupted":  # in the midst of a load
    HugePages.ask = lambda self: os.kill(os.getpid(), signal.SIGINT)
main()
"""


def served(mode: str) -> subprocess.CompletedProcess[str]:
    """The command, which says what is imported whenever a load begins."""
    command = [sys.executable, "-c", BEGUN, mode, "serve", str(tiny_gguf()), "--host", ELSEWHERE]
    command += ["--port", "8080", "--max-seconds", "90"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """The first time that this machine sees the file."""
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path))
    monkeypatch.delenv("LFM2GGUF_TRIAL")
    return served("whole")


def test_a_known_file_is_loaded_before_what_serves_it_is_imported(
    first: subprocess.CompletedProcess[str],
) -> None:
    """Nor has its header been read: all of that happens while C code works."""
    imported = []
    for done in (first, served("whole")):
        assert f"cannot listen on {ELSEWHERE}" in done.stderr
        assert done.returncode == 2
        [modules] = done.stdout.splitlines()  # one load
        imported.append(set(modules.split()))
    late = {"lfm2gguf.runner", "lfm2gguf.gguf_file", "lfm2gguf.lfm2", "lfm2gguf.server", "numpy"}
    assert late < imported[0]
    assert not (late | {"starlette", "pydantic", "llama_cpp", "jinja2"}) & imported[1]


STARTED = """
import sys
from lfm2gguf import Runner
from lfm2gguf.server import create_app, run
with Runner(sys.argv[1], device="cpu") as lfm:
    create_app(lfm)
print(*sys.modules)
"""


def test_a_server_imports_nothing_that_only_its_description_needs() -> None:
    command = [sys.executable, "-c", STARTED, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"fastapi", "pydantic.v1", "llama_cpp.llama"} & set(done.stdout.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_a_load_that_began_ahead_can_be_interrupted(
    first: subprocess.CompletedProcess[str],
) -> None:
    assert first.returncode == 2
    done = served("interrupted")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("name", ["fastapi", "prometheus_client", "uvicorn"])
def test_what_is_missing_is_said_before_the_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = refusal("serve", tmp_path / "absent.gguf", "--port", "0", within=tmp_path)
    assert f"{name} is needed to serve a model: pip install" in said
