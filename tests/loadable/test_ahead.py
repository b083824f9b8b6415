"""A load that begins before the header is read: of which files, who takes it, and what becomes of
one that nobody takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import Runner, convert
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import choose
from lfm2gguf.llamacpp.library import library
from lfm2gguf.loadable import loading_ahead
from lfm2gguf.loadable.trial import VARIABLE, is_known
from tests.doctor.operations import Change, rewrite

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


@pytest.fixture(scope="module")
def sound(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead") / "sound.gguf"
    return convert(small, folder, "F32", jobs=1).files[0].path


@pytest.fixture(autouse=True)
def known(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has been served on this machine before."""
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv(VARIABLE)
    assert not is_known(sound)
    Runner(sound, device="cpu").close()
    assert is_known(sound)


@pytest.fixture
def calls(known: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called of the library, in order: loads, and models that are freed."""
    said: list[str] = []
    llama = library()

    def heard(name: str) -> None:
        function = getattr(llama, name)

        def call(*arguments: Any) -> Any:
            said.append(name.removeprefix("llama_model_"))
            return function(*arguments)

        monkeypatch.setattr(llama, name, call)

    heard("llama_model_load_from_file")
    heard("llama_model_free")
    return said


@pytest.mark.parametrize("mmap", [False, True])
def test_the_model_takes_it_over(sound: Path, calls: list[str], mmap: bool) -> None:
    with loading_ahead(sound, "cpu", mmap=mmap):
        with Runner(sound, device="cpu", mmap=mmap) as runner:
            assert runner.complete("a", max_tokens=1, ignore_eos=True).finish_reason == "length"
        assert calls == ["load_from_file", "free"]
    assert calls == ["load_from_file", "free"]


def test_it_answers_as_any_other(sound: Path) -> None:
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    with Runner(sound, device="cpu") as runner:
        expected = runner.complete("a", **asked).text
    with loading_ahead(sound, "cpu", mmap=False), Runner(sound, device="cpu", mmap=False) as runner:
        assert runner.complete("a", **asked).text == expected


def test_another_way_to_load_leaves_it(sound: Path, calls: list[str]) -> None:
    with loading_ahead(sound, "cpu", mmap=True):
        Runner(sound, device="cpu", mmap=False).close()
        assert calls == ["load_from_file"] * 2 + ["free"]
    assert calls == ["load_from_file"] * 2 + ["free"] * 2


@pytest.mark.parametrize("error", [OptionError, KeyboardInterrupt, SystemExit])
def test_what_goes_wrong_meanwhile_frees_it(
    sound: Path, calls: list[str], error: type[BaseException]
) -> None:
    with pytest.raises(error), loading_ahead(sound, "cpu", mmap=False):
        raise error
    assert calls[0] == "load_from_file"
    assert calls[1:] in ([], ["free"])  # it was stopped, or had ended


def test_what_the_caller_finds_wrong_is_said(sound: Path, calls: list[str]) -> None:
    with (
        loading_ahead(sound, "cpu", mmap=False),
        pytest.raises(OptionError, match="context is 0"),
    ):
        Runner(sound, device="cpu", context=0, mmap=False)


def test_a_file_that_has_changed(sound: Path, tmp_path: Path, calls: list[str]) -> None:
    path = rewrite(sound, tmp_path / "a.gguf", Change())
    with loading_ahead(path, "cpu", mmap=False):  # this machine has not seen it
        assert not calls
    Runner(path, device="cpu").close()
    times = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"general.name", b"general.nama", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    del calls[:]
    with loading_ahead(path, "cpu", mmap=False):  # of the same size and time
        assert not calls


@pytest.mark.parametrize("name", ["none.gguf", "."])
def test_what_is_no_file(name: str, tmp_path: Path, calls: list[str]) -> None:
    with loading_ahead(tmp_path / name, "cpu", mmap=False):
        assert not calls


def test_no_file_is_known_without_trials(
    sound: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    with loading_ahead(sound, "cpu", mmap=False):
        assert not calls


def test_no_memory(sound: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller counts what the model needs, and refuses it in its own words."""
    monkeypatch.setattr("lfm2gguf.loadable.ahead.available_memory", lambda: 1000)
    with loading_ahead(sound, "cpu", mmap=False):
        assert not calls


@pytest.mark.parametrize("device", ["cuda", "rpc:127.0.0.1:1", "nonsense"])
def test_other_devices_are_the_callers(device: str, sound: Path, calls: list[str]) -> None:
    with loading_ahead(sound, device, mmap=False):
        assert not calls


def test_auto_is_the_cpu_where_there_is_no_other(sound: Path, calls: list[str]) -> None:
    with loading_ahead(sound, "auto", mmap=False):
        Runner(sound, mmap=False).close()
    assert calls.count("load_from_file") == 1
    if choose("auto"):
        assert calls == ["load_from_file", "free"]
