"""The devices and backends of the installed build."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.bindings import bindings
from lfm2gguf.llamacpp.library import library, loading

MOST_THREADS = 512  # GGML_MAX_N_THREADS (ggml/include/ggml.h)


@dataclass(frozen=True)
class Device:
    """One device that the installed build can drive (``ggml_backend_dev_t``).

    ``backend`` is the registry's name (``CPU``, ``CUDA``, ``Vulkan``, ``ROCm``, ``Metal``);
    ``kind`` is ``cpu``, ``gpu``, ``igpu`` or ``accel``; memory is in bytes, as the driver
    reported it when the list was made.
    """

    name: str
    description: str
    backend: str
    kind: str
    memory_free: int
    memory_total: int
    handle: int = field(repr=False, compare=False)


_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")  # enum ggml_backend_dev_type


@functools.cache
def libggml() -> Any:
    """Return libggml with the signatures that llama_cpp does not declare."""
    library()
    with loading():
        found = bindings("_ggml").libggml
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    memory = [pointer, ctypes.POINTER(size), ctypes.POINTER(size)]
    for name, arguments, result in (
        ("ggml_backend_dev_count", [], size),
        ("ggml_backend_dev_get", [size], pointer),
        ("ggml_backend_dev_name", [pointer], text),
        ("ggml_backend_dev_description", [pointer], text),
        ("ggml_backend_dev_type", [pointer], ctypes.c_int),
        ("ggml_backend_dev_memory", memory, None),
        ("ggml_backend_dev_backend_reg", [pointer], pointer),
        ("ggml_backend_reg_name", [pointer], text),
        ("ggml_backend_reg_count", [], size),
        ("ggml_backend_reg_get", [size], pointer),
        ("ggml_backend_reg_by_name", [text], pointer),
        ("ggml_backend_reg_dev_count", [pointer], size),
        ("ggml_backend_reg_dev_get", [pointer, size], pointer),
        ("ggml_backend_reg_get_proc_address", [pointer, text], pointer),
    ):
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, result
    return found


def backends() -> list[str]:
    """Return the names of the backends compiled into the installed llama.cpp."""
    ggml = libggml()
    registries = (ggml.ggml_backend_reg_get(i) for i in range(ggml.ggml_backend_reg_count()))
    return [ggml.ggml_backend_reg_name(registry).decode() for registry in registries]


def devices() -> list[Device]:
    """Return the devices that the installed build finds on this machine."""
    ggml = libggml()
    return [device_of(ggml.ggml_backend_dev_get(i)) for i in range(ggml.ggml_backend_dev_count())]


def device_of(handle: int) -> Device:
    """Return what ggml says of a device."""
    ggml = libggml()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    registry = ggml.ggml_backend_dev_backend_reg(handle)
    return Device(
        name=ggml.ggml_backend_dev_name(handle).decode(),
        description=ggml.ggml_backend_dev_description(handle).decode(),
        backend=ggml.ggml_backend_reg_name(registry).decode(),
        kind=_KINDS[ggml.ggml_backend_dev_type(handle)],
        memory_free=free.value,
        memory_total=total.value,
        handle=handle,
    )


def default_threads() -> int:
    """Return the physical cores this process may use: decoding gains nothing from SMT."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, (os.cpu_count() or 2) // 2)
    return max(1, len({_core(cpu) for cpu in allowed}))


def check_threads(threads: int | None) -> None:
    """Refuse what ggml has no room for; None is left to :func:`default_threads`.

    Raises:
        OptionError: it is less than one, or more than ggml's arrays hold.

    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"threads (--threads) is {threads}: it must be 1 to {MOST_THREADS}")


def _core(cpu: int) -> str:
    """Return a name for the core a logical CPU sits on; Linux names it by its siblings."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text(encoding="ascii") if siblings.exists() else str(cpu)
