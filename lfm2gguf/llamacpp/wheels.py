"""Prebuilt wheels of llama-cpp-python: which its own index has for a platform.

The index is a choice, never needed: pip builds the same from the source on PyPI. Nothing is
fetched here; what there is follows from llama-cpp-python 0.3.36's source: the names from README.md
and ``.github/workflows/generate-index-from-release.yaml``, the platforms from
``build-and-release.yaml`` and ``build-wheels-{cuda,metal,rocm,vulkan}.yaml``. All wheels are tagged
``py3-none`` (``wheel.py-api`` in pyproject.toml), so that any Python takes them; the README names
3.10, 3.11 and 3.12.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

INDEX = "https://abetlen.github.io/llama-cpp-python/whl"
DOCUMENTED = ((3, 10), (3, 11), (3, 12))  # versions of Python that the README names
_LINUX, _WINDOWS = "linux-x86_64", "windows-x86_64"
_BOTH = frozenset({_LINUX, _WINDOWS})
_CUDA = {  # by the version of CUDA, newest first
    (13, 2): _BOTH, (13, 0): _BOTH, (12, 5): _BOTH, (12, 4): _BOTH,
    (12, 3): frozenset({_LINUX}), (12, 2): frozenset({_LINUX}), (12, 1): frozenset({_LINUX}),
    (11, 8): _BOTH,
}  # fmt: skip
_USUAL_CUDA = (12, 4)  # where no driver says what it knows
_OTHERS: Mapping[str, Mapping[str, frozenset[str]]] = {  # backend -> name in the index -> platforms
    "cpu": {
        "cpu": frozenset({
            *_BOTH, "linux-aarch64", "linux-riscv64", "macos-arm64",
            "linux-musl-x86_64", "linux-musl-aarch64",
        })
    },
    "metal": {"metal": frozenset({"macos-arm64"})},
    "rocm": {"rocm72": frozenset({_LINUX}), "hip-radeon": frozenset({_WINDOWS})},
    "vulkan": {"vulkan": _BOTH},
}  # fmt: skip


@dataclass(frozen=True)
class Wheel:
    """Wheels of one backend for this platform: the name in the index, and what they need beside."""

    index: str
    packages: tuple[str, ...] = ()  # of PyPI, with the libraries that the wheel leaves out
    needs: str = ""

    @property
    def url(self) -> str:
        """The address for pip's ``--extra-index-url``."""
        return f"{INDEX}/{self.index}"


def platform_name() -> str:
    """Return this platform as ``linux-x86_64``, ``linux-musl-x86_64``, ``macos-arm64``, ..."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    if sys.platform.startswith("linux"):
        musl = "" if platform.libc_ver()[0] == "glibc" else "musl-"
        return f"linux-{musl}{machine}"
    return f"{ {'darwin': 'macos', 'win32': 'windows'}.get(sys.platform, sys.platform) }-{machine}"


def cuda_of_driver() -> tuple[int, int] | None:
    """Return the newest version of CUDA that NVIDIA's driver knows, None without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return (
        None if failed or not version.value else (version.value // 1000, version.value % 1000 // 10)
    )


def prebuilt(
    backend: str, on: str | None = None, cuda: tuple[int, int] | None = None
) -> Wheel | None:
    """Return the wheels of a backend for a platform (None: this one), None where there are none.

    ``cuda`` is the version that the driver knows (None: it is asked): the newest wheels are taken
    that it can run.
    """
    here = on or platform_name()
    if backend != "cuda":
        names = _OTHERS.get(backend, {})
        index = next((name for name, platforms in names.items() if here in platforms), None)
        return Wheel(index, needs=_NEEDS.get(index, "")) if index else None
    most = cuda or cuda_of_driver() or _USUAL_CUDA
    version = next((v for v, platforms in _CUDA.items() if v <= most and here in platforms), None)
    if version is None:
        return None
    major, minor = version
    index = f"cu{major}{minor}"
    if here != _LINUX:
        return Wheel(index, needs=f"CUDA {major}'s toolkit, at CUDA_PATH")
    packages = ("nvidia-cuda-runtime", "nvidia-cublas")
    # NVIDIA names its packages so: -cu12 up to CUDA 12, then a version of one name
    named = (f'"{name}=={major}.*"' if major >= 13 else f"{name}-cu{major}" for name in packages)
    return Wheel(index, tuple(named))


_NEEDS = {
    "rocm72": "ROCm 7",
    "hip-radeon": "AMD's driver",
    "vulkan": "the Vulkan loader",
}
