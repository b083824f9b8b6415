"""Fetching from the Hub, against a server of our own; huggingface_hub itself is the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf import convert
from lfm2gguf.checkpoint.hub import locate
from lfm2gguf.errors import CheckpointError
from tests.checkpoint.fake_hub import COMMIT, REPOSITORY, Hub, serve
from tests.cli.command import COMMAND
from tests.making.lanes import slow_but
from tests.making.multimodal import CASES, make_multimodal

ROOT = Path(__file__).parents[2]
UNREACHABLE = "http://127.0.0.1:9"  # the discard port: nobody listens

pytestmark = pytest.mark.hub


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    """The small checkpoint on a Hub, among files that no conversion needs."""
    for name in ("pytorch_model.bin", "model.gguf", "onnx/model.onnx", "image.png", "optimizer.pt"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"not needed" * 1000)
    with serve(checkpoint) as hub:
        yield hub


def settings(home: Path, endpoint: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }


def fetch_and_convert(
    folder: Path, endpoint: str, *options: str, source: str = REPOSITORY, **more: str
) -> subprocess.CompletedProcess[str]:
    """Convert in a process of its own: huggingface_hub reads its settings once."""
    command = [*COMMAND, "convert", source, "-o", str(folder), *options]
    environment = settings(folder / "home", endpoint) | more
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


def refusal(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done
    assert not list(folder.glob("*.gguf*"))
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"lfm2gguf: {REPOSITORY}: ")
    return last


def test_only_what_is_needed_is_fetched(hub: Hub, small: Path, tmp_path: Path) -> None:
    done = fetch_and_convert(tmp_path, hub.url, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    needed = {path.name for path in small.iterdir()}
    assert hub.fetched == needed
    (written,) = tmp_path.glob("*.gguf")
    assert written.name == "LFM2-Small-Q4_K_M.gguf"  # the repository's name, not the snapshot's
    convert(small, tmp_path / "local.gguf")
    assert written.read_bytes() == (tmp_path / "local.gguf").read_bytes()


@pytest.mark.slow
def test_a_checkpoint_in_a_folder_of_the_repository(hub: Hub, tmp_path: Path) -> None:
    """As the audio detokenizer is: only that is fetched, and it becomes the same file."""
    inner = make_multimodal(CASES["audio_detokenizer"], hub.folder / "audio_detokenizer")
    done = fetch_and_convert(tmp_path, hub.url, "-q", source=f"{REPOSITORY}/audio_detokenizer")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hub.fetched == {f"audio_detokenizer/{path.name}" for path in inner.iterdir()}
    (written,) = tmp_path.glob("*.gguf")
    (tmp_path / "local").mkdir()
    local = convert(inner, tmp_path / "local").files[0].path
    assert written.name == local.name
    assert written.read_bytes() == local.read_bytes()


def test_a_folder_that_the_repository_does_not_have(hub: Hub, tmp_path: Path) -> None:
    done = fetch_and_convert(tmp_path, hub.url, source=f"{REPOSITORY}/audio_detokenizer")
    assert "has no folder 'audio_detokenizer'" in refusal(done, tmp_path)


@pytest.mark.parametrize("source", ["./no/folder", "../none", "a/b/c/d", "a/b/.."])
def test_what_looks_like_a_path_is_not_asked_for(source: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        locate(source)


@pytest.mark.slow
def test_what_is_cached_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    assert fetch_and_convert(tmp_path, hub.url, "-q").returncode == 0
    hub.asked.clear()
    assert fetch_and_convert(tmp_path, hub.url, "-q", "--force").returncode == 0
    assert not hub.fetched


@pytest.mark.slow
def test_without_the_network_the_cache_is_enough(hub: Hub, tmp_path: Path) -> None:
    assert fetch_and_convert(tmp_path, hub.url, "-q").returncode == 0
    hub.asked.clear()
    again = fetch_and_convert(tmp_path, hub.url, "-qf", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again
    assert not hub.asked
    assert fetch_and_convert(tmp_path, UNREACHABLE, "-qf").returncode == 0


def test_a_folder_of_the_cache_has_the_repositorys_name(hub: Hub, tmp_path: Path) -> None:
    assert fetch_and_convert(tmp_path, hub.url, "-q").returncode == 0
    (snapshot,) = (tmp_path / "home" / "hub").glob("models--*/snapshots/*")
    (tmp_path / "second").mkdir()
    (file,) = convert(snapshot, tmp_path / "second").files
    assert file.path.name == "LFM2-Small-Q4_K_M.gguf"
    assert file.path.read_bytes() == (tmp_path / "LFM2-Small-Q4_K_M.gguf").read_bytes()


@pytest.mark.parametrize("revision", slow_but(["v1"], ["v1", COMMIT]))
def test_a_revision(hub: Hub, tmp_path: Path, revision: str) -> None:
    done = fetch_and_convert(tmp_path, hub.url, "-q", "--revision", revision)
    assert done.returncode == 0, done
    assert any(revision in path for _, path, _ in hub.asked)


@pytest.mark.slow
def test_a_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    """Whether huggingface_hub tries again by itself or in the next run: not from the start."""
    shard = hub.folder / "model.safetensors"
    shard.write_bytes(os.urandom(30_000_000))  # huggingface_hub writes 10 MB at a time
    hub.cuts[shard.name] = 1
    code = f"from lfm2gguf.checkpoint.hub import locate; print(locate({REPOSITORY!r}).path)"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
            env=settings(tmp_path / "home", hub.url),
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert "HubError" in done.stderr.splitlines()[-1]
    assert (Path(done.stdout.strip()) / shard.name).read_bytes() == shard.read_bytes()
    starts = [
        start for method, path, start in hub.asked if method == "GET" and path.endswith(shard.name)
    ]
    assert len(starts) == 2
    assert starts[0] == 0 < starts[1] <= 15_000_000


@pytest.mark.slow
def test_a_shard_that_never_comes(hub: Hub, tmp_path: Path) -> None:
    hub.cuts["model.safetensors"] = 1000
    done = fetch_and_convert(tmp_path, hub.url, "-q", HF_HUB_DOWNLOAD_TIMEOUT="1")
    refusal(done, tmp_path)


REFUSALS = {
    "gated": ((403, "GatedRepo"), "accept its terms"),
    "absent": ((401, "RepoNotFound"), "no such repository, or a private one"),
    "absent for those who are logged in": ((404, "RepoNotFound"), "no such repository"),
    "down": ((500, "Internal"), "cannot be reached"),
    "forbidden": ((403, "Forbidden"), ""),
}


@pytest.mark.parametrize("name", slow_but(["gated"], REFUSALS))
def test_refusals(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.refusal, message = REFUSALS[name]
    assert message in refusal(fetch_and_convert(tmp_path, hub.url), tmp_path)


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    done = fetch_and_convert(tmp_path, hub.url, "--revision", "v9")
    assert "has no revision 'v9'" in refusal(done, tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    said = refusal(fetch_and_convert(tmp_path, UNREACHABLE), tmp_path)
    assert "cannot be reached" in said


def test_offline_and_not_in_the_cache(tmp_path: Path) -> None:
    said = refusal(fetch_and_convert(tmp_path, UNREACHABLE, HF_HUB_OFFLINE="1"), tmp_path)
    assert "not in the cache" in said


def test_a_repository_without_weights(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").unlink()
    done = fetch_and_convert(tmp_path, hub.url)
    assert done.returncode == 2
    assert "has no weights" in done.stderr.splitlines()[-1]


def test_a_folder_wins_over_the_hub(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / REPOSITORY)
    command = [*COMMAND, "convert", REPOSITORY, "-q"]
    environment = os.environ | {"HF_ENDPOINT": UNREACHABLE}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
