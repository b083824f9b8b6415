"""Other Pythons on this machine: the package installs there, and does the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = "convert", "quantize", "verify", "publish", "run", "serve", "bench", "imatrix"
MINORS = range(10, 16)  # requires-python, and the newest that it is tested with


def _found() -> dict[str, Path]:
    """Those on the PATH, and those beside this one, as pyenv and uv have them."""
    found = {}
    for minor in MINORS:
        name = f"python3.{minor}"
        beside = sorted(Path(sys.base_prefix).parent.glob(f"*3.{minor}[.-]*/bin/{name}"))
        on_path = shutil.which(name)
        for python in [*beside, *([Path(on_path)] if on_path else [])]:
            said = subprocess.run([python, "--version"], capture_output=True, text=True)
            if said.stdout.startswith(f"Python 3.{minor}"):  # pyenv's shims may answer nothing
                found[f"3.{minor}"] = python
    found.pop(f"{sys.version_info.major}.{sys.version_info.minor}", None)
    return found


OTHERS = _found()


def say(python: Path | str, *words: str | Path) -> str:
    """Run the command with a Python; return what it prints."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-m", "lfm2gguf_cli.main", *words]
    done = subprocess.run(command, env=env | {"COLUMNS": "100"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.weekly
@pytest.mark.parametrize("version", [f"3.{minor}" for minor in MINORS])
def test_another_python_does_the_same(version: str, tmp_path: Path) -> None:
    if version not in OTHERS:
        pytest.skip(f"no other Python {version} is here")
    subprocess.run([OTHERS[version], "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [python, "-m", "pip", "install", "-q", f"{ROOT}[serve,bench,verify]"]
    subprocess.run(install, check=True)
    for command in COMMANDS:
        assert say(python, command, "--help") == say(sys.executable, command, "--help")
    model = ROOT / "examples" / "tiny-lfm2"
    for who, name in ((python, "other"), (sys.executable, "own")):
        (tmp_path / name).mkdir()
        say(who, "convert", model, "-t", "Q4_K_M,Q8_0", "-o", tmp_path / name)
    files = sorted((tmp_path / "own").glob("*.gguf"))
    assert len(files) == 2
    for path in files:
        assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()
    say(python, "verify", files[0], "--reference", model, "--chunks", "2")
    assert say(python, "run", files[0], "-p", "Hello", "--max-tokens", "4", "--temperature", "0")
