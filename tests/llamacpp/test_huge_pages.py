"""Memory in huge pages, by what Linux says of this process."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from lfm2gguf.llamacpp import huge_pages
from lfm2gguf.llamacpp.huge_pages import HUGE, LEAST, HugePages

SIZE = 2 * LEAST * HUGE


def room(size: int) -> mmap.mmap:
    """Return memory as malloc takes it from the system, behind a page that nobody may touch.

    So it is no one piece with its neighbours.
    """
    new = mmap.mmap(-1, mmap.PAGESIZE + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(place_of(new)), mmap.PAGESIZE, 0) == 0
    return new


def place_of(room: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


def huge_bytes(room: mmap.mmap) -> int:
    """Write to every page, and return how many bytes Linux keeps in huge pages."""
    room[mmap.PAGESIZE :] = b"7" * (len(room) - mmap.PAGESIZE)
    found = 0
    for part in re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text()):
        start, stop = (int(place, 16) for place in part.split(maxsplit=1)[0].split("-"))
        if start < place_of(room) + len(room) and place_of(room) + mmap.PAGESIZE < stop:
            found += 1024 * int(re.search(r"AnonHugePages: +(\d+)", part)[1])  # type: ignore[index]
    return found


@pytest.fixture
def _on_request() -> None:
    if not huge_pages._on_request():
        pytest.skip("this system does not give huge pages to those who ask (madvise)")


@pytest.mark.usefixtures("_on_request")
def test_memory_that_is_asked_for_comes_in_huge_pages() -> None:
    before = room(SIZE)
    pages = HugePages()
    large, small = room(SIZE), room(HUGE)
    pages.ask()
    pages.ask()
    late = room(SIZE)
    found = [huge_bytes(each) for each in (before, large, small, late)]
    if not any(found):
        pytest.skip("this system has no free memory in large pieces")
    assert found[1] >= SIZE // 2
    assert found[0] == found[2] == found[3] == 0


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_elsewhere_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    switch = tmp_path / "enabled"
    if setting is not None:
        switch.write_text(setting)
    monkeypatch.setattr(huge_pages, "SWITCH", switch)
    monkeypatch.setattr(huge_pages, "_allocated", lambda: pytest.fail("it looked"))
    HugePages().ask()


def test_without_proc_nothing_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_on_request", lambda: True)
    monkeypatch.setattr(huge_pages, "MAPS", tmp_path / "maps")
    HugePages().ask()


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
