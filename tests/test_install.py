"""The command that a remedy names fits where the package came from (PEP 610)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lfm2gguf import install

ORIGINS = {
    "": '"lfm2gguf[run]"',
    '{"url": "file:///home/me/lfm2 gguf", "dir_info": {}}': '"/home/me/lfm2 gguf[run]"',
    '{"url": "file:///home/me/a%20b", "dir_info": {"editable": true}}': '-e "/home/me/a b[run]"',
    '{"url": "https://host/org/lfm2gguf.git", "vcs_info": {"vcs": "git", '
    '"requested_revision": "v1", "commit_id": "abc"}}': (
        '"lfm2gguf[run] @ git+https://host/org/lfm2gguf.git@v1"'
    ),
    '{"url": "https://host/a.git", "subdirectory": "x", "vcs_info": {"vcs": "git", '
    '"commit_id": "abc"}}': '"lfm2gguf[run] @ git+https://host/a.git@abc#subdirectory=x"',
    '{"url": "https://host/lfm2gguf-1.whl", "archive_info": {}}': (
        '"lfm2gguf[run] @ https://host/lfm2gguf-1.whl"'
    ),
    "not JSON": '"lfm2gguf[run]"',
    "[]": '"lfm2gguf[run]"',
}


@pytest.mark.skipif(sys.platform == "win32", reason="the paths are POSIX")
@pytest.mark.parametrize("note", ORIGINS)
def test_where_it_came_from(note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "lfm2gguf-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lfm2gguf\nVersion: 1\n")
    if note:
        (about / "direct_url.json").write_text(note)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install.install_command("run") == f"pip install {ORIGINS[note]}"


ELSEWHERE = {
    "": '"lfm2gguf[run]"',
    '{"url": "file:///home/me/a", "dir_info": {"editable": true}}': (
        '"lfm2gguf[run]"  # in a checkout: pip install ".[run]"'
    ),
    '{"url": "file:///tmp/lfm2gguf-1.whl", "archive_info": {}}': (
        '"lfm2gguf[run]"  # in a checkout: pip install ".[run]"'
    ),
    '{"url": "https://me:token@host/a.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}': (
        '"lfm2gguf[run] @ git+https://host/a.git@abc"'
    ),
    '{"url": "https://host/lfm2gguf-1.whl", "archive_info": {}}': (
        '"lfm2gguf[run] @ https://host/lfm2gguf-1.whl"'
    ),
}


@pytest.mark.parametrize("note", ELSEWHERE)
def test_for_another_machine(note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder of this one nor a secret."""
    monkeypatch.setattr(install, "_origin", lambda: json.loads(note or "{}"))
    assert install.install_elsewhere("run") == f"pip install {ELSEWHERE[note]}"


def test_a_checkout_that_nobody_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    root = Path(install.__file__).parents[1]
    assert (
        install.install_command("serve", "--upgrade") == f'pip install --upgrade -e "{root}[serve]"'
    )


@pytest.mark.slow
def test_pip_takes_the_command(tmp_path: Path) -> None:
    """pip itself reads what is printed: a checkout whose path has a space."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("pip is not installed here")
    project = tmp_path / "a b"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "lfm2gguf"\nversion = "1"\noptional-dependencies = {run = []}\n'
        '[build-system]\nrequires = []\nbuild-backend = "none"\n'
    )
    note = json.dumps({"url": project.as_uri(), "dir_info": {}})
    command = install._target(json.loads(note), "lfm2gguf[run]", "[run]")
    done = subprocess.run(
        f"{' '.join(pip)} install --dry-run --no-build-isolation --no-deps {command}",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert str(project) in done.stdout  # it found the folder, and failed at the build backend
    assert "Invalid requirement" not in done.stderr
