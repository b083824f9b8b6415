"""Which device runs a model: chosen among those that are there, and reported as it is.

Nothing falls back in silence. A device that was asked for and is missing is an error that
says what is missing (the build, the driver or the hardware) and how to get it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lfm2gguf.errors import DeviceError, OptionError
from lfm2gguf.llamacpp import (
    Context,
    Device,
    Model,
    backends,
    build_info,
    default_threads,
    devices,
)
from lfm2gguf.llamacpp.machine import available_memory

_AGAIN = "--force-reinstall --no-deps --no-cache-dir"  # pip would keep the build that is there
_PACKAGE = '"llama-cpp-python>=0.3.36"'
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"


@dataclass(frozen=True)
class Backend:
    """A kind of device, as it is asked for, and how to get it."""

    registry: str  # the name in ggml's registry
    cmake: str
    wheel: str  # in the index of llama-cpp-python's prebuilt wheels (its README)
    driver: tuple[str, ...]  # files or programs, any of which shows that a driver is there
    driver_help: str

    @property
    def install(self) -> str:
        """The command that builds llama-cpp-python for this backend."""
        return f'CMAKE_ARGS="{self.cmake}" pip install {_AGAIN} {_PACKAGE}'

    @property
    def install_wheel(self) -> str:
        """The command that takes a wheel that was built for it."""
        index = f"--only-binary llama-cpp-python --extra-index-url {WHEELS}/{self.wheel}"
        return f"pip install {_AGAIN} {_PACKAGE} {index}"


BACKENDS = {
    "cuda": Backend(
        "CUDA", "-DGGML_CUDA=on", "cu124", ("nvidia-smi", "/proc/driver/nvidia/version"),
        "install NVIDIA's driver (nvidia-smi must list the GPU)",
    ),
    "vulkan": Backend(
        "Vulkan", "-DGGML_VULKAN=on", "vulkan",
        ("vulkaninfo", "/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"),
        "install a Vulkan driver (mesa-vulkan-drivers, or the vendor's)",
    ),
    "rocm": Backend(
        "ROCm", "-DGGML_HIP=on", "rocm72", ("rocminfo", "/dev/kfd"),
        "install ROCm (rocminfo must list the GPU)",
    ),
    "metal": Backend(
        "MTL", "-DGGML_METAL=on", "metal", ("/System/Library",), "Metal needs macOS",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DeviceReport:
    """What a model really runs on, as the library says after loading."""

    backend: str
    device: str
    layers_offloaded: int
    layers: int
    flash_attention: bool
    threads: int
    build: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line for people."""
        return (
            f"{self.backend} ({self.device}), {self.layers_offloaded}/{self.layers} layers "
            f"offloaded, flash attention {'on' if self.flash_attention else 'off'}, "
            f"{self.threads} threads, {self.build}"
        )


def choose(wanted: str, found: Sequence[Device] | None = None) -> list[Device]:
    """Return the devices that shall hold layers; empty for the CPU.

    ``auto`` takes the discrete GPU with the most free memory, or else an integrated one, or
    the CPU; ``cuda:1`` the second of its kind. Raises :class:`DeviceError`, :class:`OptionError`.
    """
    there = devices() if found is None else list(found)
    name, _, index = wanted.partition(":")
    if name == "cpu" and not index:
        return []
    if name == "auto" and not index:
        gpus = [device for device in there if device.kind in ("gpu", "igpu")]
        return sorted(gpus, key=lambda d: (d.kind != "gpu", -d.memory_free))[:1]
    if name not in BACKENDS or not (index.isdecimal() or not index):
        known = ", ".join(["auto", "cpu", *BACKENDS])
        raise OptionError(
            f"device is {wanted!r}: it must be {known}, or one with a number (cuda:1)"
        )
    mine = [d for d in there if d.backend == BACKENDS[name].registry and d.kind != "accel"]
    if not mine:
        raise DeviceError(missing(name))
    if int(index or 0) >= len(mine):
        listed = ", ".join(f"{name}:{i} {d.description}" for i, d in enumerate(mine))
        raise DeviceError(f"there is no {wanted}; there is {listed}")
    return [mine[int(index or 0)]]


def missing(name: str, built: Sequence[str] | None = None, driver: bool | None = None) -> str:
    """Say which of three things a missing device lacks, and how to get it."""
    backend = BACKENDS[name]
    if name == "metal" and not _on_mac():
        return f"{name}: no such hardware: {backend.driver_help}"
    if backend.registry not in (backends() if built is None else built):
        return (
            f"{name}: the installed llama-cpp-python was built without it. Build it:\n  "
            f"{backend.install}\nor, where there is one for this Python, take a prebuilt wheel:\n  "
            f"{backend.install_wheel}"
        )
    if not (_has_driver(backend) if driver is None else driver):
        return f"{name}: the build has it, but no driver answers: {backend.driver_help}"
    hint = " (GGML_VK_VISIBLE_DEVICES=0 accepts a software device)" if name == "vulkan" else ""
    return f"{name}: build and driver are there, but they find no such hardware{hint}"


def _has_driver(backend: Backend) -> bool:
    return any(shutil.which(sign) or Path(sign).exists() for sign in backend.driver)


def report(model: Model, context: Context, on: Sequence[Device]) -> DeviceReport:
    """Say what a loaded model runs on. Raises :class:`DeviceError` if it is not what was asked."""
    if on and not model.offloaded:
        raise DeviceError(f"{on[0].name}: llama.cpp loaded the model but offloaded no layer to it")
    used = on[0] if on and model.offloaded else next(d for d in devices() if d.kind == "cpu")
    info = build_info()
    return DeviceReport(
        backend=used.backend,
        device=used.description,
        layers_offloaded=model.offloaded,
        layers=model.n_layer + 1,
        flash_attention=context.flash_attention,
        threads=context.threads,
        build=f"llama-cpp-python {info['llama_cpp_python']}, llama.cpp {info['llama.cpp']}",
    )


# --- what a file needs ----------------------------------------------------------------------


def overview() -> dict[str, Any]:
    """Return the build, the devices under the names they are asked for, and what is missing."""
    names = {backend.registry: name for name, backend in BACKENDS.items()} | {"CPU": "cpu"}
    found: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for device in devices():
        name = names.get(device.backend, device.backend.lower())
        index = seen[name] = seen.get(name, -1) + 1
        entry = asdict(device)
        del entry["handle"]
        if device.kind == "cpu":  # llama.cpp calls all of it free
            entry["memory_free"] = available_memory() or device.memory_free
        found.append({"use": name if name == "cpu" else f"{name}:{index}", **entry})
    absent = [name for name in BACKENDS if name not in seen and (name == "metal") == _on_mac()]
    return {
        "build": build_info(),
        "threads": default_threads(),
        "devices": found,
        "missing": {name: missing(name) for name in absent},
    }


def _on_mac() -> bool:
    return sys.platform == "darwin"
