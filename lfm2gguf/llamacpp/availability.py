"""Which backends can be used here, what the others lack, and the command that gets it."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lfm2gguf.llamacpp.backend import GPUS, RPC, Backend, install_wheel
from lfm2gguf.llamacpp.device import backends
from lfm2gguf.llamacpp.wheels import DOCUMENTED, Wheel, cuda_of_driver, prebuilt


@dataclass(frozen=True)
class Availability:
    """What of a backend is there: in the build, and as a driver.

    ``install`` builds llama-cpp-python for it; ``wheel`` takes a prebuilt one instead, None where
    its own index has none for this platform.
    """

    built: bool
    driver: bool
    install: str
    wheel: str | None


def availability(name: str) -> Availability:
    """Look at one backend."""
    backend, wheel = GPUS[name], prebuilt(name)
    return Availability(
        built=backend.registry in backends(),
        driver=has_driver(backend),
        install=backend.install,
        wheel=install_wheel(wheel) if wheel else None,
    )


def missing(name: str, built: Sequence[str] | None = None, driver: bool | None = None) -> str:
    """Say which of four things a missing device lacks, and how to get it."""
    backend = GPUS[name]
    if name == "metal" and not on_mac():
        return f"{name}: no such hardware: {backend.driver_help}"
    has = has_driver(backend) if driver is None else driver
    if backend.registry not in (backends() if built is None else built):
        also = "" if has else f"Its driver is missing, too: {backend.driver_help}. "
        return (
            f"{name}: the installed llama-cpp-python was built without it. {also}Build it:\n  "
            f"{backend.install}{_wheel_line(prebuilt(name))}"
        )
    if not has:
        return f"{name}: the build has it, but no driver answers: {backend.driver_help}"
    if closed := closed_nodes(backend):
        group = Path(closed[0]).stat().st_gid
        return (
            f"{name}: build and driver are there, but this user may not open {', '.join(closed)}: "
            f"join group {group} (in a container: --group-add {group})"
        )
    hint = " (GGML_VK_VISIBLE_DEVICES=0 accepts a software device)" if name == "vulkan" else ""
    return f"{name}: build and driver are there, but they find no such hardware{hint}"


def missing_rpc() -> str:
    """Say that a build cannot reach other machines, and how to get one that can."""
    return (
        "rpc: the installed llama-cpp-python was built without it (a model over several machines), "
        f"and so are the prebuilt wheels. Build it:\n  {RPC.install}"
    )


def _wheel_line(wheel: Wheel | None) -> str:
    if wheel is None:
        return ""
    needs = f" (it needs {wheel.needs})" if wheel.needs else ""
    first, last = (".".join(map(str, version)) for version in (DOCUMENTED[0], DOCUMENTED[-1]))
    known = sys.version_info[:2] in DOCUMENTED
    tag = "" if known else f"; its README names Python {first} to {last}, its tag is py3-none"
    return (
        f"\nor take a prebuilt wheel of llama-cpp-python's own index{needs}{tag}:\n"
        f"  {install_wheel(wheel)}"
    )


def has_driver(backend: Backend) -> bool:
    """Say whether a driver of a backend is on this machine, by its files or by asking it."""
    if any(glob.glob(pattern) for pattern in backend.driver):  # noqa: PTH207 - from the root
        return True
    return backend.name == "cuda" and cuda_of_driver() is not None


def closed_nodes(backend: Backend) -> list[str]:
    """Return which files of a backend's devices are there, but not for this user to use."""
    return [
        node
        for pattern in backend.nodes
        for node in sorted(glob.glob(pattern))  # noqa: PTH207 - from the root
        if not os.access(node, os.R_OK | os.W_OK)
    ]


def all_backends() -> dict[str, dict[str, Any]]:
    """Return every backend as plain data, those of other systems left out."""
    return {name: asdict(availability(name)) for name in GPUS if (name == "metal") == on_mac()}


def on_mac() -> bool:
    """Say whether this is macOS, where Metal is, and nothing else."""
    return sys.platform == "darwin"
