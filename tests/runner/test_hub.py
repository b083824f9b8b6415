"""Files of a Hub repository, from a server of our own; huggingface_hub itself is the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf import convert
from lfm2gguf.conversion import Recipe
from tests.checkpoint.fake_hub import REPOSITORY, Hub, serve
from tests.checkpoint.test_hub import UNREACHABLE, settings
from tests.cli.command import COMMAND
from tests.making.lanes import slow_but
from tests.making.models import EXAMPLE, tiny_gguf

FILES = (
    "LFM2-Small-Q4_K_M.gguf",
    "LFM2-Small-Q4_0.gguf",
    "LFM2-Small-F16.gguf",
    "mmproj-LFM2-Small-F16.gguf",
    "mmproj-LFM2-Small-Q8_0.gguf",
    "README.md",
)

pytestmark = pytest.mark.hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A repository of GGUF files, all of them the example model."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in FILES:
        shutil.copy(tiny_gguf(), folder / name)
    with serve(folder) as hub:
        yield hub


def ask(home: Path, hub: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Answer in a process of its own: huggingface_hub reads its settings once."""
    command = [*COMMAND, "run", REPOSITORY, "-p", "Hi", "-n", "3", "--device", "cpu", *options]
    environment = settings(home, hub) | more
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fetched"),
    [
        ((), "LFM2-Small-Q4_K_M.gguf"),
        (("-t", "Q4_0"), "LFM2-Small-Q4_0.gguf"),
        (("-t", "f16"), "LFM2-Small-F16.gguf"),
    ],
)
def test_the_file_of_the_type_and_no_other_is_fetched(
    hub: Hub, tmp_path: Path, options: tuple[str, ...], fetched: str
) -> None:
    done = ask(tmp_path, hub.url, *options, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert json.loads(done.stdout)["usage"]["completion_tokens"] > 0
    assert hub.fetched == {fetched}
    hub.asked.clear()
    assert ask(tmp_path, hub.url, *options).returncode == 0
    assert not hub.fetched


@pytest.mark.parametrize("type", slow_but(["K_M"], ["Q8_0", "0", "K_M", "Q6_K"]))
def test_a_type_that_is_not_there_is_told_what_is(hub: Hub, tmp_path: Path, type: str) -> None:
    """A projector is no model, and a part of a type's name is no type."""
    done = ask(tmp_path, hub.url, "-t", type)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"lfm2gguf: {REPOSITORY}: no GGUF file of type {type}; it has ")
    assert said.count("LFM2-Small-") == 3
    assert "mmproj" not in said
    assert not hub.fetched


@pytest.mark.slow
def test_a_model_in_several_files_is_fetched_whole(hub: Hub, tmp_path: Path) -> None:
    parts = convert(
        EXAMPLE, hub.folder / "LFM2-Small-Q8_0.gguf", Recipe("Q8_0", split_max_size="1M")
    ).files
    names = {path.name for path in hub.folder.glob("*Q8_0-*")}
    assert len(names) > 1, parts
    done = ask(tmp_path, hub.url, "-t", "q8_0")
    assert done.returncode == 0, done
    assert hub.fetched == names


@pytest.mark.slow
def test_without_the_network_the_cache_is_enough(hub: Hub, tmp_path: Path) -> None:
    assert ask(tmp_path, hub.url).returncode == 0
    assert ask(tmp_path, UNREACHABLE).returncode == 0
    assert ask(tmp_path, UNREACHABLE, HF_HUB_OFFLINE="1").returncode == 0
    other = ask(tmp_path, UNREACHABLE, "-t", "F16")
    assert "no GGUF file of type F16; it has LFM2-Small-Q4_K_M.gguf" in other.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((403, "GatedRepo"), "accept its terms"),
        ((401, "RepoNotFound"), "no such repository"),
        ((500, "Internal"), "cannot be reached"),
    ],
)
def test_refusals(hub: Hub, tmp_path: Path, answer: tuple[int, str], message: str) -> None:
    hub.refusal = answer
    done = ask(tmp_path, hub.url)
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.splitlines()[-1]  # huggingface_hub tells of its tries
    assert said.startswith(f"lfm2gguf: {REPOSITORY}: ")
    assert message in said
