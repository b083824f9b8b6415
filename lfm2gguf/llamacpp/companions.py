"""The libraries that a CUDA build is linked with and does not bring: from PyPI's packages.

A wheel or build of llama-cpp-python for CUDA needs CUDA's runtime and cuBLAS. NVIDIA publishes
both as packages (``nvidia-cublas`` and others), which put them where the system's loader does not
look. What is loaded already is found by its name, so they are loaded first.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_ORDER = ("libcudart", "libcublasLt", "libcublas")  # each needs those before it


def load_companions() -> None:
    """Load what the installed llama-cpp-python needs for CUDA, as far as the system lacks it."""
    if not sys.platform.startswith("linux"):
        return
    library = next((f / "lib" / "libggml-cuda.so" for f in _folders("llama_cpp")), None)
    version = library and library.is_file() and _cuda_version(library)
    if not version:
        return
    for name in _ORDER:
        file = f"{name}.so.{version}"
        try:
            ctypes.CDLL(file)
        except OSError:
            if found := next(_in_packages(file), None):
                ctypes.CDLL(str(found))


def _cuda_version(library: Path) -> str | None:
    """Return the number at the end of the runtime's name with which a library is linked."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = re.search(rb"libcudart\.so\.([0-9.]+)", data)
        return found[1].decode() if found else None


def _in_packages(file: str) -> Iterator[Path]:
    for folder in _folders("nvidia"):  # nvidia/cublas/lib up to CUDA 12, nvidia/cu13/lib after it
        yield from folder.glob(f"*/lib/{file}")


def _folders(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
