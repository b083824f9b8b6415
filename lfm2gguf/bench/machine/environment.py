"""The machine a benchmark ran on, as far as it can be read without rights or libraries.

What cannot be read is left out, never guessed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf.ggml import FileType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import backends, build_info, default_threads, devices
from lfm2gguf.version import __version__

FILE_TYPES = {type.id: type.name for type in FileType}
PACKAGES = ("numpy", "llama-cpp-python", "httpx")
NVIDIA = ("name", "driver_version", "power.limit", "memory.total", "compute_cap")
POWER = {  # watts are these files' micro-watts; the kernel's powercap and amdgpu documentation
    "processor": "/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw",
    "gpu": "/sys/class/drm/card*/device/hwmon/hwmon*/power1_cap",
}


def environment() -> dict[str, Any]:
    """Describe this machine and what runs on it; only what is known."""
    found = {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": _cores(),
        "memory_bytes": _memory(),
        "load_average": _load(),
        "power_cap_watts": dict(_power_caps()),
        "gpus": _nvidia(),
        "os": _os(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "lfm2gguf": __version__,
        "packages": dict(_packages()),
        "llama.cpp": _llama_cpp(),
    }
    return {key: value for key, value in found.items() if value not in (None, "", {}, [])}


def machine_name(about: dict[str, Any], device: str | None = None) -> str:
    """Return a name for this machine: the device that computes, else its processor."""
    return device or str(about.get("processor") or about["architecture"])


def describe_file(file: GGUFFile) -> dict[str, Any]:
    """Return name, type, size and SHA-256 of a model's file; of several, all their bytes."""
    paths = sorted({tensor.file for tensor in file.tensors.values()} | {file.path})
    number = file.get("general.file_type")
    return {
        "name": file.path.name,
        "architecture": file.architecture,
        "type": FILE_TYPES.get(number, str(number)) if isinstance(number, int) else None,
        "bytes": sum(path.stat().st_size for path in paths),
        "sha256": _digest(paths),
    }


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _processor() -> str:
    if sys.platform == "linux":
        text = _read("/proc/cpuinfo")
        found = re.search(r"^(?:model name|Model|Hardware)\s*: (.+)$", text, re.MULTILINE)
        if found:
            return found[1].strip()
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor()


def _cores() -> dict[str, int]:
    try:
        physical = default_threads()
    except Lfm2ggufError:
        return {"logical": os.cpu_count() or 1}
    return {"physical_usable": physical, "logical": os.cpu_count() or 1}


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _load() -> list[float] | None:
    """Return the load over 1, 5 and 15 minutes: whether others were at work."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError, AttributeError):
        return platform.platform(terse=True)


def _power_caps() -> Iterator[tuple[str, float]]:
    for name, pattern in POWER.items():
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            text = _read(str(path)).strip()
            if text.isdecimal():
                yield name, int(text) / 1e6


def _nvidia() -> list[dict[str, str]]:
    """Return name, driver, power limit, memory and compute capability of NVIDIA's GPUs."""
    text = _said("nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv,noheader")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [dict(zip(NVIDIA, row, strict=True)) for row in rows if len(row) == len(NVIDIA)]


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def _llama_cpp() -> dict[str, Any] | None:
    """Return version, build flags, backends and devices of the library in this process."""
    try:
        info = build_info()
        found = [f"{d.backend}: {d.description}" for d in devices()]
        return {
            "version": info["llama.cpp"], "llama_cpp_python": info["llama_cpp_python"],
            "build": info["system"], "backends": backends(), "devices": found,
        }  # fmt: skip
    except Lfm2ggufError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _said(*command: str) -> str:
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    try:
        done = run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
