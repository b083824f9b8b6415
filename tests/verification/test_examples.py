"""The CI examples: valid YAML, and their commands do what they say."""

from __future__ import annotations

import os
import re
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
ACTION = REPOSITORY / ".github" / "actions" / "verify"
INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")


def github() -> tuple[dict[str, str], list[str]]:
    workflow: Any = yaml.safe_load((EXAMPLES / "github.yml").read_text())
    steps = workflow["jobs"]["gguf"]["steps"]
    return workflow["env"], [step["run"] for step in steps if "run" in step]


def gitlab() -> tuple[dict[str, str], list[str]]:
    job: Any = yaml.safe_load((EXAMPLES / "gitlab.yml").read_text())["gguf"]
    assert job["artifacts"]["reports"]["junit"] == "report/verify.xml"
    return job["variables"], job["script"]


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the examples are for a POSIX shell")


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """What a runner sets, with the command of this environment first on the path."""
    program = f'{shlex.quote(sys.executable)} -m lfm2gguf_cli.main "$@"'
    (folder / "lfm2gguf").write_text(f"#!/bin/sh\nexec {program}\n")
    (folder / "lfm2gguf").chmod(0o755)
    return os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "cli")]),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_OUTPUT": str(folder / "outputs"),
        **variables,
    }


@pytest.mark.slow
@pytest.mark.parametrize("read", [github, gitlab])
def test_the_commands_run(read: Any, example: Path, tmp_path: Path) -> None:
    variables, commands = read()
    script = "\n".join(command for command in commands if "pip install" not in command)
    runner = environment(tmp_path, MODEL=str(example), TYPES=variables["TYPES"])
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, env=runner, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"verify.json", "verify.xml", "verify.md", "verify.svg"}
    assert len(list((tmp_path / "gguf").glob("*.gguf"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "passed"), [("0.1", True), ("0.0000001", False)])
def test_the_action(example: Path, tmp_path: Path, limit: str, passed: bool) -> None:
    """Its script, called as action.yml calls it: every input is given, and nothing else."""
    action: Any = yaml.safe_load((ACTION / "action.yml").read_text())
    given = {name: str(about.get("default", "")) for name, about in action["inputs"].items()}
    types = "Q4_K_M Q8_0" if passed else "Q4_K_M\nQ8_0\n"  # a YAML block gives lines
    given |= {"model": str(example), "types": types}
    given["verify-options"] = f"--max-kld {limit} --chunks 2"
    [step] = [step for step in action["runs"]["steps"] if step.get("id") == "verify"]
    assert step["run"] == 'bash "$GITHUB_ACTION_PATH/verify.sh"'
    read = {name: INPUT.fullmatch(value) for name, value in step["env"].items()}
    values = {name: given[match[1]] for name, match in read.items() if match}
    runner = environment(tmp_path, **values, GITHUB_ACTION_PATH=str(ACTION))
    done = subprocess.run(
        ["bash", "-c", step["run"]], cwd=tmp_path, env=runner, capture_output=True, text=True
    )
    assert done.returncode == (0 if passed else 1), done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    assert outputs == {"folder": "gguf", "report": "report", "passed": str(passed).lower()}
    assert len(list((tmp_path / outputs["folder"]).glob("*.gguf"))) == 2
    summary = (tmp_path / "summary.md").read_text()
    assert summary == (tmp_path / "report" / "verify.md").read_text()
    assert ("✅ passed" in summary) == passed
