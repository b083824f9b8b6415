"""The CI examples: valid YAML, and their commands do what they say."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples" / "ci"


def github() -> tuple[dict[str, str], list[str]]:
    workflow: Any = yaml.safe_load((EXAMPLES / "github.yml").read_text())
    steps = workflow["jobs"]["gguf"]["steps"]
    return workflow["env"], [step["run"] for step in steps if "run" in step]


def gitlab() -> tuple[dict[str, str], list[str]]:
    job: Any = yaml.safe_load((EXAMPLES / "gitlab.yml").read_text())["gguf"]
    assert job["artifacts"]["reports"]["junit"] == "report/verify.xml"
    return job["variables"], job["script"]


@pytest.mark.parametrize("read", [github, gitlab])
def test_the_commands_run(read: Any, example: Path, tmp_path: Path) -> None:
    variables, commands = read()
    program = f'{shlex.quote(sys.executable)} -m lfm2gguf_cli.main "$@"'
    (tmp_path / "lfm2gguf").write_text(f"#!/bin/sh\nexec {program}\n")
    (tmp_path / "lfm2gguf").chmod(0o755)
    script = "\n".join(command for command in commands if "pip install" not in command)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "cli")]),
        "MODEL": str(example),
        "TYPES": variables["TYPES"],
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    if os.name == "nt":
        pytest.skip("the examples are for a POSIX shell")
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"verify.json", "verify.xml", "verify.md", "verify.svg"}
    assert len(list((tmp_path / "gguf").glob("*.gguf"))) == 2
