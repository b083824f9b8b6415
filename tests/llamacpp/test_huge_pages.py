"""Memory in huge pages, by what Linux says of this process."""

from __future__ import annotations

import ctypes
import mmap
import re
import time
from pathlib import Path

import pytest

from lfm2gguf.llamacpp import huge_pages
from lfm2gguf.llamacpp.huge_pages import HUGE, LEAST, in_huge_pages

SIZE = 2 * LEAST * HUGE


def filled(size: int) -> mmap.mmap:
    """Return memory as malloc takes it from the system, every page of it written."""
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.write(b"7" * size)
    return room


def huge_bytes(room: mmap.mmap) -> int:
    """Return how much of it Linux keeps in huge pages; neighbours of one kind count as one."""
    place = ctypes.addressof(ctypes.c_char.from_buffer(room))
    found = 0
    for part in re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text()):
        start, stop = (int(x, 16) for x in part.split(maxsplit=1)[0].split("-"))
        if start <= place < stop:
            found = 1024 * int(re.search(r"AnonHugePages: +(\d+)", part)[1])  # type: ignore[index]
    return found


@pytest.fixture
def _on_request() -> None:
    if not huge_pages._on_request():
        pytest.skip("this system does not give huge pages to those who ask (madvise)")


@pytest.mark.usefixtures("_on_request")
def test_what_is_allocated_in_the_block_is_in_huge_pages() -> None:
    with filled(SIZE) as before:
        assert huge_bytes(before) == 0
        with in_huge_pages():
            time.sleep(0.5)  # as long as loading takes: gathering has half of it
            inside = filled(SIZE)
        if not huge_bytes(inside):
            pytest.skip("this system has no free memory in large pieces, or is older than 6.1")
        assert huge_bytes(inside) >= SIZE // 2
        assert inside[:] == before[:]
        inside.close()


@pytest.mark.usefixtures("_on_request")
def test_no_time_left_and_small_memory_leave_pages_small(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_huge_pages():
        small = filled(2 * HUGE)
    monkeypatch.setattr(huge_pages, "SHARE", 0.0)
    with in_huge_pages():
        large = filled(SIZE)
    assert small[0] == large[-1] == ord("7")
    assert huge_bytes(large) == 0


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_elsewhere_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    switch = tmp_path / "enabled"
    if setting is not None:
        switch.write_text(setting)
    monkeypatch.setattr(huge_pages, "SWITCH", switch)
    monkeypatch.setattr(huge_pages, "_allocated", lambda: pytest.fail("it looked"))
    with in_huge_pages():
        pass


def test_without_proc_nothing_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_on_request", lambda: True)
    monkeypatch.setattr(huge_pages, "MAPS", tmp_path / "maps")
    with in_huge_pages():
        pass


def test_an_error_in_the_block_goes_through() -> None:
    with pytest.raises(ValueError, match="loading"), in_huge_pages():
        raise ValueError("loading")


@pytest.mark.parametrize(
    ("pages", "runs"),
    [
        (set(), []),
        ({5}, [range(5, 6)]),
        ({0, 1, 2, 7, 8, 10}, [range(3), range(7, 9), range(10, 11)]),
    ],
)
def test_runs(pages: set[int], runs: list[range]) -> None:
    assert list(huge_pages._runs(pages)) == runs
