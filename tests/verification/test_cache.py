"""The cache of the reference: exact, keyed by contents, bounded, and never a reason to fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.verification import Material, open_reference, prepare
from lfm2gguf.verification.material import cache
from lfm2gguf.verification.material.texts import Sample


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def states(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((7, 3)).astype(np.float32)


def test_what_is_stored_comes_back_to_the_bit(folder: Path) -> None:
    assert cache.load("a", (7, 3)) is None
    cache.store("a", states())
    found = cache.load("a", (7, 3))
    assert found is not None
    np.testing.assert_array_equal(found, states())
    assert [path.name for path in folder.iterdir()] == ["a.npy"]


def test_a_damaged_entry_is_no_entry(folder: Path) -> None:
    cache.store("a", states())
    assert cache.load("a", (7, 4)) is None
    path = folder / "a.npy"
    data = path.read_bytes()
    for damaged in (b"", data[:-1], b"garbage", data[:-4] + b"\xff\xff\xff\xff"):
        path.write_bytes(damaged)
        assert cache.load("a", (7, 3)) is None


def test_the_oldest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 700)
    for i, name in enumerate("abc"):
        cache.store(name, states(i))
        os.utime(folder / f"{name}.npy", (i, i))
    cache.load("a", (7, 3))  # used just now
    cache.store("d", states())
    left = {path.stem for path in folder.iterdir()}
    assert "a" in left
    assert "b" not in left
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 700


def test_a_folder_that_refuses_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "file" / "cache"))
    cache.store("a", states())
    assert cache.load("a", (7, 3)) is None


def test_the_digest_sees_every_byte_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PIECE", 1 << 16)
    path = tmp_path / "a.safetensors"
    data = bytearray(np.random.default_rng(0).bytes(200_000))
    path.write_bytes(data)
    first = cache.content_digest([path])
    os.utime(path, (0, 0))
    assert cache.content_digest([path]) == first
    for at in (0, 70_000, 199_999):
        data[at] ^= 1
        path.write_bytes(data)
        os.utime(path, (0, 0))
        assert cache.content_digest([path]) != first
        data[at] ^= 1
    path.write_bytes(b"")
    assert cache.content_digest([path]) != first


def test_the_key_is_checkpoint_tokens_and_positions() -> None:
    ids, positions = np.arange(8, dtype=np.int32), np.arange(4, 7)
    samples = [Sample(ids, positions)]
    base = cache.key("x", samples)
    assert cache.key("x", [Sample(ids.copy(), positions.copy())]) == base
    others = [
        cache.key("y", samples),
        cache.key("x", samples * 2),
        cache.key("x", [Sample(ids[::-1].copy(), positions)]),
        cache.key("x", [Sample(ids, positions[1:])]),
        cache.key("x", [Sample(ids[:7], positions[:2]), Sample(ids[7:], positions[2:])]),
    ]
    assert len({base, *others}) == len(others) + 1


def test_the_second_run_finds_the_first(example: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(example, tmp_path / "renamed")  # another name and time, same contents
    first = prepare(open_reference(example), Material(chunks=1))
    second = prepare(open_reference(copy), Material(chunks=1))
    assert (first.cached, second.cached) == (False, True)
    np.testing.assert_array_equal(first.states, second.states)
    assert not prepare(open_reference(example), Material(chunks=1, cache=False)).cached
    assert not prepare(open_reference(example), Material(chunks=2)).cached
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 255 * 256 * 4


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "x/lfm2gguf"),
        ("win32", "LOCALAPPDATA", "x/lfm2gguf"),
        ("darwin", "NONE", "Library/Caches/lfm2gguf"),
    ],
)
def test_the_folder_is_the_platforms(
    monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, expected: str
) -> None:
    monkeypatch.delenv("LFM2GGUF_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, "x")
    assert cache.cache_folder().as_posix().endswith(expected)
