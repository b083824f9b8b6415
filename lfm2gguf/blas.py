"""Which BLAS multiplies matrices, and with how many threads.

NumPy's wheels bring OpenBLAS, whose kernels differ between processors and whose sums differ
between numbers of threads. Here it is asked for its name, and held to one thread: while the bytes
of a calibrated file depend on its sums, and while threads of our own call it, as its threads spin
where they wait for each other. Another BLAS, as of a distribution's NumPy or of macOS, is named
as NumPy was built, and its threads cannot be held.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

# How builds of OpenBLAS spell their functions: of NumPy's wheels, with 64-bit integers, plain.
SPELLINGS = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")
# Where wheels keep the libraries that they bring, beside NumPy or in it (macOS).
FOLDERS = ("../numpy.libs", ".dylibs")


@dataclass(frozen=True)
class Blas:
    """A BLAS by name and version, and the processor that its kernels are made for ("" unknown)."""

    name: str
    version: str
    kernels: str = ""

    def __str__(self) -> str:
        """Return it as it is recorded, such as ``OpenBLAS 0.3.31, SkylakeX kernels``."""
        said = f"{self.name} {self.version}".strip()
        return f"{said}, {self.kernels} kernels" if self.kernels else said


class _OpenBlas:
    """The OpenBLAS that NumPy has loaded."""

    def __init__(self, library: Any, spelling: str) -> None:
        def function(name: str, result: Any, *arguments: Any) -> Any:
            found = getattr(library, spelling.format(name))
            found.restype, found.argtypes = result, arguments
            return found

        self._config = function("get_config", ctypes.c_char_p)
        self._kernels = function("get_corename", ctypes.c_char_p)
        self.threads = function("get_num_threads", ctypes.c_int)
        self.set_threads = function("set_num_threads", None, ctypes.c_int)
        self._lock, self._holders, self._before = Lock(), 0, 1

    def hold(self) -> int:
        """Leave it one thread; return how many it had."""
        with self._lock:
            threads = int(self.threads())
            if not self._holders:
                self._before = threads
                self.set_threads(1)
            self._holders += 1
            return threads

    def release(self) -> None:
        """Give its threads back, if nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self.set_threads(self._before)

    def describe(self) -> Blas:
        name, version = [*self._config().decode().split(), "", ""][:2]
        return Blas(name, version, self._kernels().decode())


def describe() -> Blas:
    """Return the BLAS that NumPy uses."""
    if (openblas := _openblas()) is not None:
        return openblas.describe()
    config: Any = np.show_config(mode="dicts")
    built = config.get("Build Dependencies", {}).get("blas", {})
    return Blas(str(built.get("name", "unknown")), str(built.get("version", "")))


def recorded() -> str:
    """Return what the bytes of a calibrated file depend on, as the file says it."""
    threads = "one thread" if _openblas() is not None else "threads as it chose"
    return f"{describe()}, {threads}"


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Hold the BLAS to one thread, where that is possible; yield how many it had.

    1 where it cannot be held: it goes on with its own. Blocks may overlap, in threads too; the
    last to end gives the threads back.
    """
    openblas = _openblas()
    if openblas is None:
        yield 1
        return
    before = openblas.hold()
    try:
        yield before
    finally:
        openblas.release()


@lru_cache(maxsize=1)
def _openblas() -> _OpenBlas | None:
    for path in _libraries():
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for spelling in SPELLINGS:
                with contextlib.suppress(AttributeError):
                    return _OpenBlas(library, spelling)
    return None


def _libraries() -> Iterator[Path]:
    """Give files that may be the OpenBLAS of this process's NumPy; opening one again is no copy."""
    for folder in FOLDERS:
        yield from sorted((Path(np.__file__).parent / folder).glob("*openblas*"))
    if sys.platform == "linux":  # a distribution's, by what is mapped into memory
        with contextlib.suppress(OSError):
            lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
            mapped = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
            yield from sorted(map(Path, filter(os.path.isabs, mapped)))
