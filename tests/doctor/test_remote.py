"""A Hub repository inspected by its headers, from a server of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import GGUFFile
from tests.checkpoint.fake_hub import REPOSITORY, Hub, serve
from tests.checkpoint.test_hub import settings
from tests.cli.command import COMMAND
from tests.making.models import EXAMPLE, tiny_gguf

pytestmark = pytest.mark.hub


def ask(hub: Hub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: huggingface_hub reads its settings once."""
    command = [*COMMAND, *arguments]
    environment = settings(home, hub.url)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


def answer(hub: Hub, home: Path, *arguments: str) -> dict[str, Any]:
    done = ask(hub, home, *arguments, "--json")
    assert done.returncode == 0, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Hub]:
    """GGUF files of a Hub repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for type in ("Q4_K_M", "F16"):
        shutil.copy(tiny_gguf(), folder / f"LFM2-Small-{type}.gguf")
    with serve(folder) as hub:
        yield hub


def test_a_gguf_is_inspected_without_its_weights(repository: Hub, tmp_path: Path) -> None:
    about = answer(repository, tmp_path, "inspect", REPOSITORY, "-t", "F16")
    file = GGUFFile.open(tiny_gguf())
    assert about["path"] == REPOSITORY
    assert [t["name"] for t in about["tensors"]] == list(file.tensors)
    assert about["metadata"]["tokenizer.ggml.tokens"]["length"] > 100
    assert repository.sent.keys() == {"LFM2-Small-F16.gguf"}
    assert repository.sent["LFM2-Small-F16.gguf"] < 5 << 20 < file.path.stat().st_size


@pytest.mark.slow
def test_a_gguf_is_examined_without_its_weights(repository: Hub, tmp_path: Path) -> None:
    found = answer(repository, tmp_path, "doctor", REPOSITORY)
    assert found["path"] == f"{REPOSITORY}/LFM2-Small-Q4_K_M.gguf"
    assert (found["healthy"], found["findings"]) == (True, [])
    assert any("its weights were not examined" in fact for fact in found["facts"])
    done = ask(repository, tmp_path, "doctor", REPOSITORY, "-t", "Q8_0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no GGUF file of type Q8_0; it has" in done.stderr


@pytest.mark.slow
def test_a_checkpoint(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "tiny"))
    with serve(folder) as hub:
        about = answer(hub, tmp_path, "inspect", REPOSITORY)
        found = answer(hub, tmp_path, "doctor", REPOSITORY)
        assert hub.sent["model.safetensors"] <= 3 << 18
        (folder / "config.json").write_text("{")
        # with a cache of its own: a commit that is known is not asked for again
        done = ask(hub, tmp_path / "other", "doctor", REPOSITORY)
    assert [t["name"] for t in about["tensors"]] == list(Checkpoint.open(EXAMPLE).tensors)
    assert found["findings"] == []
    assert done.returncode == 2
    assert done.stderr.startswith(f"lfm2gguf: {REPOSITORY}/config.json: ")


@pytest.mark.slow
def test_a_repository_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "README.md").write_text("# Nothing")
    with serve(tmp_path / "x") as hub:
        done = ask(hub, tmp_path, "inspect", REPOSITORY)
    assert done.returncode == 2
    assert "holds neither safetensors nor a GGUF file" in done.stderr


@pytest.mark.slow
def test_verify_takes_a_repository(repository: Hub, tmp_path: Path) -> None:
    more = ("-t", "F16", "-r", str(EXAMPLE), "--chunks", "1", "--ctx", "64", "--engine", "numpy")
    done = ask(repository, tmp_path, "verify", REPOSITORY, *more, "--max-kld", "1")
    assert done.returncode == 0, done
    assert "passed" in done.stdout
    assert repository.fetched == {"LFM2-Small-F16.gguf"}
