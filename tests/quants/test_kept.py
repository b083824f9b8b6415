"""Machine code of earlier runs: what of it is used, and what becomes of the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lfm2gguf.caches import cache_folder
from lfm2gguf.errors import Lfm2ggufError

pytest.importorskip("numba", reason="numba is not installed")
ROOT = Path(__file__).parents[2]
# Prints the bytes, how many functions were found, and how many were not.
PROGRAM = """
import sys
import numba
import numpy as np
from lfm2gguf.quants import quantize
from lfm2gguf.quants.compiled import legacy
x = np.resize(np.float32([1, -2, 3, 4, -5, 6, 7]), (32, 64))
data = quantize(x, "Q8_0").tobytes().hex()
stats = legacy.ENCODERS["Q8_0"].stats
print(data, len(stats.cache_hits), len(stats.cache_misses))
"""


def run(**env: str) -> tuple[str, int, int]:
    """Quantize in a process of its own; return the bytes, functions found, and compiled."""
    given = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    given |= {"PYTHONPATH": str(ROOT), "LFM2GGUF_KERNELS": "numba"} | env
    command, folder = [sys.executable, "-c", PROGRAM], given["PYTHONPATH"]
    done = subprocess.run(command, env=given, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    data, hits, misses = done.stdout.split()
    return data, int(hits), int(misses)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with code, and the bytes that it makes."""
    folder = tmp_path_factory.mktemp("kept")
    data, hits, misses = run(NUMBA_CACHE_DIR=str(folder))
    assert (hits, misses) == (0, 1)
    return folder, data


def _replace(content: bytes, _: list[bytes]) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


DAMAGE = {
    "nothing": lambda content, others: b"",
    "its beginning": lambda content, others: content[: len(content) // 2],
    "other bytes": lambda content, others: bytes(range(256)) * 20,
    "zeros within": _replace,
    "another function's": lambda content, others: next(c for c in others if c != content),
}


def test_code_is_found_again(kept: tuple[Path, str]) -> None:
    folder, data = kept
    assert run(NUMBA_CACHE_DIR=str(folder)) == (data, 1, 0)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_compiled_anew(
    damage: str, kept: tuple[Path, str], tmp_path: Path
) -> None:
    """As a full disk, or power that failed, leaves files; then the code is whole again."""
    shutil.copytree(kept[0], folder := tmp_path / "kept")
    files = sorted(folder.rglob("*.nbc"))
    assert len(files) > 2
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(DAMAGE[damage](content, contents))
    assert run(NUMBA_CACHE_DIR=str(folder)) == (kept[1], 0, 1)
    assert run(NUMBA_CACHE_DIR=str(folder)) == (kept[1], 1, 0)


def test_code_of_other_sources_is_compiled_anew(kept: tuple[Path, str], tmp_path: Path) -> None:
    """numba alone would look at the one file of each function, not at what it inlines."""
    shutil.copytree(kept[0], folder := tmp_path / "kept")
    shutil.copytree(
        ROOT / "lfm2gguf", tmp_path / "lfm2gguf", ignore=shutil.ignore_patterns("*.pyc")
    )
    changed = tmp_path / "lfm2gguf" / "quants" / "compiled" / "lanes.py"
    changed.write_text(changed.read_text("utf-8") + "\n# another\n", "utf-8")
    names = {path.name for path in folder.rglob("*.nbc")}
    again = {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(tmp_path)}
    assert run(**again) == (kept[1], 0, 1)
    assert {path.name for path in folder.rglob("*.nbc")} == names  # the old has made room
    assert run(**again) == (kept[1], 1, 0)


def test_without_a_folder_it_is_compiled_every_time(kept: tuple[Path, str]) -> None:
    """A read-only installation, and a user without a home, as containers have them."""
    nowhere = str(Path(os.devnull) / "x")
    assert run(NUMBA_CACHE_DIR=nowhere) == (kept[1], 0, 1)


def test_code_is_looked_for_in_each_folder_and_kept_in_the_first_that_takes_it(
    kept: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever installed the package may have compiled ahead for users who cannot write there."""
    from lfm2gguf.quants.compiled import kept as module

    monkeypatch.setattr(module.numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path))
    beside, own = module.folders()
    assert beside.parent == Path(module.__file__).parent
    assert own.is_relative_to(tmp_path)

    blocked = tmp_path / "a file"
    blocked.touch()
    monkeypatch.setattr(module, "folders", lambda: [blocked / "x", tmp_path / "y", tmp_path / "z"])
    assert module.place() == tmp_path / "y"
    for found in (0, 1):
        function = module.numba.njit(_add_one)
        function._cache = module.Kept(_add_one)
        assert function(1) == 2
        assert sum(function.stats.cache_hits.values()) == found
        [path] = tmp_path.rglob("*.nbc")
        assert path.parent == tmp_path / ("z" if found else "y")
        if not found:
            (tmp_path / "y").rename(tmp_path / "z")
    monkeypatch.setattr(module, "folders", lambda: [blocked / "x"])
    assert module.place() is None


def _add_one(x: int) -> int:
    return x + 1


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LFM2GGUF_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises((OSError, Lfm2ggufError)):
        cache_folder().mkdir(parents=True)
