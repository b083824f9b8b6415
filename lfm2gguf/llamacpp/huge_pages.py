"""Weights in huge pages, where Linux gives them to those who ask.

To decode a token is to read all weights once. In pages of 4 KiB the processor looks up the place
of each page as well, some 50,000 a token; in those of 2 MiB hardly any. llama.cpp does not ask
for them, so they are asked for here, between its allocating and its filling of its buffers. What
it maps from a file stays as it is.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HUGE = 2 << 20  # bytes of a huge page of x86-64, and of aarch64 with pages of 4 KiB
LEAST = 8  # huge pages in a row: buffers of weights, and no thread's stack
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MAPS = Path("/proc/self/maps")
MADV_HUGEPAGE = 14  # include/uapi/asm-generic/mman-common.h


class HugePages:
    """Huge pages for what this process allocates from now on, until :meth:`ask` asks for them."""

    def __init__(self) -> None:
        self._before = _allocated() if _on_request() else None

    def ask(self) -> None:
        """Ask, the first time it is called; what is refused comes in small pages, as it would."""
        if self._before is None:
            return
        advise: Any = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for run in _runs(_allocated() - self._before):
            if len(run) >= LEAST:
                advise(run.start * HUGE, len(run) * HUGE, MADV_HUGEPAGE)
        self._before = None


def _on_request() -> bool:
    """Whether Linux is set to ``madvise``: with ``always`` and ``never`` there is nothing to ask.

    (Documentation/admin-guide/mm/transhuge.rst)
    """
    try:
        return sys.platform == "linux" and "[madvise]" in SWITCH.read_text(encoding="ascii")
    except OSError:
        return False


def _allocated() -> set[int]:
    """Return the huge pages, by number, that this process's own memory covers whole."""
    pages: set[int] = set()
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # such as a sandbox without /proc
        return pages
    for line in lines:
        span, access, _, _, inode, *_ = line.split(maxsplit=5)
        if access == "rw-p" and inode == "0":
            start, stop = (int(place, 16) for place in span.split("-"))
            pages.update(range(-(-start // HUGE), stop // HUGE))
    return pages


def _runs(pages: set[int]) -> Iterator[range]:
    """Yield the pages in ranges without gaps."""
    start = stop = -1
    for page in sorted(pages):
        if page != stop:
            if stop > start:
                yield range(start, stop)
            start = page
        stop = page + 1
    if stop > start:
        yield range(start, stop)
