"""What the device itself can do: memory bandwidth and matrix rate, by ggml's own kernels.

Three graphs of a few nodes each, run on the device that runs the model, with as many threads:
a copy (bytes read and written count), a float32 matrix times one vector (bytes of the matrix
count: it is what decoding does), and a float16 matrix times 512 vectors (two operations for each
product: it is what prefill does). The best run of some tenths of a second counts: a probe asks
what is possible.

Functions and structures from llama.cpp commit 0c1e57098 (``ggml/include/ggml.h``,
``ggml-alloc.h``, ``ggml-backend.h``).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.llamacpp.device import Device, libggml

F32, F16 = 0, 1  # enum ggml_type
COPIED = 64 << 20  # numbers: 256 MiB, far more than any cache
ROWS, COLUMNS = 8192, 8192  # the matrix that is read: 256 MiB
SQUARE, VECTORS = 4096, 512
REPEATS, SECONDS = 8, 0.7  # of each graph, at least
PATIENCE = 5.0  # seconds, after which twice is enough: a Vulkan device in software takes six a run
OVERHEAD = 1 << 20  # bytes for the graph itself


@dataclass(frozen=True)
class Probes:
    """Bytes a second copied and read, operations a second, and on what."""

    device: str
    threads: int | None
    copy: float
    read: float
    matrix: float

    @property
    def bandwidth(self) -> float:
        """The higher of the two bandwidths: a roofline must not lie too low."""
        return max(self.copy, self.read)

    def to_json(self) -> dict[str, Any]:
        """Return the figures in SI units."""
        return {**asdict(self), "bandwidth": self.bandwidth}


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


@cache
def _library() -> Any:
    """Return libggml with the signatures that are needed here."""
    library = libggml()
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    for name, result, arguments in (
        ("ggml_init", pointer, [_InitParams]),
        ("ggml_free", None, [pointer]),
        ("ggml_nbytes", size, [pointer]),
        ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, number, number]),
        ("ggml_cpy", pointer, [pointer] * 3),
        ("ggml_mul_mat", pointer, [pointer] * 3),
        ("ggml_new_graph", pointer, [pointer]),
        ("ggml_build_forward_expand", None, [pointer, pointer]),
        ("ggml_backend_alloc_ctx_tensors", pointer, [pointer, pointer]),
        ("ggml_backend_buffer_free", None, [pointer]),
        ("ggml_backend_tensor_memset", None, [pointer, ctypes.c_uint8, size, size]),
        ("ggml_backend_dev_init", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_backend_free", None, [pointer]),
        ("ggml_backend_graph_compute", ctypes.c_int, [pointer, pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def probe(device: Device, threads: int) -> Probes:
    """Measure a device; about three seconds and 0.6 GB on a processor, longer on a slower device.

    Raises:
        RuntimeFailureError: the device cannot compute, or lacks the memory.
    """
    library = _library()
    backend = library.ggml_backend_dev_init(device.handle, None)
    if not backend:
        raise RuntimeFailureError(f"{device.name}: ggml cannot open the device")
    try:
        if device.kind == "cpu":
            _set_threads(library, device, backend, threads)
        copy, product = library.ggml_cpy, library.ggml_mul_mat
        copying = _best(backend, copy, (F32, COPIED, 1), (F32, COPIED, 1))
        reading = _best(backend, product, (F32, COLUMNS, ROWS), (F32, COLUMNS, 1))
        computing = _best(backend, product, (F16, SQUARE, SQUARE), (F32, SQUARE, VECTORS))
        return Probes(
            device=device.description,
            threads=threads if device.kind == "cpu" else None,
            copy=2 * 4 * COPIED / copying,
            read=4 * ROWS * COLUMNS / reading,
            matrix=2 * SQUARE * SQUARE * VECTORS / computing,
        )
    finally:
        library.ggml_backend_free(backend)


def _set_threads(library: Any, device: Device, backend: int, threads: int) -> None:
    registry = library.ggml_backend_dev_backend_reg(device.handle)
    address = library.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
    if address:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(address)(backend, threads)


def _best(backend: int, operation: Callable[..., int], *shapes: tuple[int, int, int]) -> float:
    """Return the shortest time in seconds of an operation on tensors of ``(type, ne0, ne1)``."""
    library = _library()
    context = library.ggml_init(_InitParams(OVERHEAD, None, True))
    buffer = None
    try:
        tensors = [library.ggml_new_tensor_2d(context, *shape) for shape in shapes]
        result = operation(context, *tensors)
        graph = library.ggml_new_graph(context)
        library.ggml_build_forward_expand(graph, result)
        buffer = library.ggml_backend_alloc_ctx_tensors(context, backend)
        if not buffer:
            raise RuntimeFailureError("the device has no room for the probes")
        for tensor in tensors:
            library.ggml_backend_tensor_memset(tensor, 0, 0, library.ggml_nbytes(tensor))
        times = list[float]()
        while not enough(times):
            times.append(_timed(library, backend, graph))
        return min(times)
    finally:
        if buffer:
            library.ggml_backend_buffer_free(buffer)
        library.ggml_free(context)


def enough(times: Sequence[float]) -> bool:
    """Say whether a graph that took so many seconds, run by run, has run often enough.

    The first run may hold what is made once (a GPU's shaders), so it is never the only one.
    """
    spent = sum(times)
    often = len(times) >= REPEATS and spent >= SECONDS
    return often or (len(times) > 1 and spent >= PATIENCE)


def _timed(library: Any, backend: int, graph: int) -> float:
    began = time.perf_counter()
    if library.ggml_backend_graph_compute(backend, graph):
        raise RuntimeFailureError("the device cannot compute the probes")
    return time.perf_counter() - began
