"""Which device runs a model: chosen among those that are there, and reported as it is.

Nothing falls back in silence. A device that was asked for and is missing is an error that
says what is missing (the build, the driver or the hardware) and how to get it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import DeviceError, OptionError
from lfm2gguf.llamacpp.availability import all_backends, missing, missing_rpc
from lfm2gguf.llamacpp.backend import BACKENDS, GPUS, RPC
from lfm2gguf.llamacpp.device import Device, backends, default_threads, devices
from lfm2gguf.llamacpp.library import build_info
from lfm2gguf.llamacpp.machine import available_memory
from lfm2gguf.llamacpp.rpc import PREFIX, remote_devices

if TYPE_CHECKING:
    from lfm2gguf.llamacpp.context import Context
    from lfm2gguf.llamacpp.model import Model

_PATTERN = re.compile(r"(?P<kind>[a-z]+):?(?P<index>\d*)")  # cuda, cuda:1, cuda1


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
    """Return the devices that hold the layers; empty for the CPU.

    The one rule of what a device's name means, in capitals or not: ``auto`` is the discrete GPU
    with the most free memory, else an integrated one, else the CPU; ``cuda`` is the first of its
    kind and ``cuda:1`` the second; ``CUDA1`` and ``MTL0`` are llama.cpp's own names for them;
    ``rpc:HOST:PORT,HOST:PORT`` are all devices of servers on other machines.

    Raises:
        DeviceError: the device is missing; the message says what it lacks.
        OptionError: the name is not one of a device.

    """
    there = [d for d in (devices() if found is None else found) if d.kind in ("gpu", "igpu")]
    name = wanted.lower()
    if name == "cpu":
        return []
    if name.startswith(PREFIX):
        return remote_devices(name)
    if name == "auto":
        return sorted(there, key=lambda d: (d.kind != "gpu", -d.memory_free))[:1]
    if named := [device for device in there if device.name.lower() == name]:
        return named[:1]
    match = _PATTERN.fullmatch(name)
    registries = {device.backend.lower(): device.backend for device in there}
    registries |= {b.registry.lower(): b.registry for b in GPUS.values()}
    registries |= {name: backend.registry for name, backend in GPUS.items()}
    if not match or match["kind"] not in registries:
        known = ", ".join(["auto", "cpu", *GPUS])
        raise OptionError(
            f"device (--device) is {wanted!r}: it must be {known}, one with a number (cuda:1), "
            "or rpc:HOST:PORT"
        )
    registry, index = registries[match["kind"]], int(match["index"] or 0)
    mine = [device for device in there if device.backend == registry]
    use = use_name(registry)
    if not mine:
        raise DeviceError(missing(use))
    if index >= len(mine):
        listed = ", ".join(f"{use}:{i} {d.description}" for i, d in enumerate(mine))
        raise DeviceError(f"{wanted}: there is no {use}:{index}; there is {listed}")
    return [mine[index]]


def use_name(registry: str) -> str:
    """Return the name by which a backend is asked for, given its name in ggml's registry."""
    ours = (name for name, backend in BACKENDS.items() if backend.registry == registry)
    return next(ours, registry.lower())


def report(model: Model, context: Context, on: Sequence[Device]) -> DeviceReport:
    """Say what a loaded model runs on.

    Raises:
        DeviceError: it is not what was asked for.
    """
    if on and not model.offloaded:
        raise DeviceError(f"{on[0].name}: llama.cpp loaded the model but offloaded no layer to it")
    used = on[0] if on and model.offloaded else next(d for d in devices() if d.kind == "cpu")
    info = build_info()
    return DeviceReport(
        backend=used.backend,
        device=", ".join(dict.fromkeys(d.description for d in on)) or used.description,
        layers_offloaded=model.offloaded,
        layers=model.n_layer + 1,
        flash_attention=context.flash_attention,
        threads=context.threads,
        build=f"llama-cpp-python {info['llama_cpp_python']}, llama.cpp {info['llama.cpp']}",
    )


def overview() -> dict[str, Any]:
    """Return the build, the devices under the names they are asked for, and what is missing."""
    found: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for device in devices():
        name = use_name(device.backend)
        index = seen[name] = seen.get(name, -1) + 1
        entry = asdict(device)
        del entry["handle"]
        if device.kind == "cpu":  # llama.cpp calls all of it free
            entry["memory_free"] = available_memory() or device.memory_free
        found.append({"use": name if name == "cpu" else f"{name}:{index}", **entry})
    known = all_backends()
    lacking = {name: missing(name) for name in known if name not in seen}
    if RPC.registry not in backends():
        lacking["rpc"] = missing_rpc()
    return {
        "build": build_info(),
        "threads": default_threads(),
        "devices": found,
        "backends": known,
        "missing": lacking,
    }
