"""Loads of weights: in a thread of their own, and perhaps begun before their model is made."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lfm2gguf.llamacpp.device import Device
from lfm2gguf.llamacpp.huge_pages import HugePages
from lfm2gguf.llamacpp.library import library, logger, making, unheard_log

# Loads that have begun before their models: what waits for the pointer, by file, mmap and thread.
_begun: dict[tuple[Path, bool, int], Callable[[], Any]] = {}


@contextlib.contextmanager
def load_ahead(path: Path, *, mmap: bool) -> Iterator[None]:
    """Begin to load a file on the CPU: a ``Model`` of it that is made meanwhile takes it over.

    That is, one that this thread makes. What no model has taken is stopped and freed. Where the
    logger takes the load's report (at ``DEBUG``) nothing is begun.
    """
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    with contextlib.ExitStack() as under_way:
        under_way.enter_context(unheard_log())
        loaded = under_way.enter_context(load(path, (), 0, mmap=mmap))

        def take() -> Any:
            pointer = loaded()
            under_way.close()
            return pointer

        key = path, mmap, threading.get_ident()
        _begun[key] = take
        try:
            yield
        finally:
            _begun.pop(key, None)


def begun(path: Path, *, mmap: bool) -> Callable[[], Any] | None:
    """Return what waits for the load that this thread has begun, if it has, to be taken over."""
    return _begun.pop((path, mmap, threading.get_ident()), None)


@contextlib.contextmanager
def load(
    path: Path, on: Sequence[Device], gpu_layers: int, *, mmap: bool
) -> Iterator[Callable[[], Any]]:
    """Load in a thread; the function waits for the pointer, which is null where it failed."""
    llama = library()
    params = llama.llama_model_default_params()
    handles = (ctypes.c_void_p * (len(on) + 1))(*(device.handle for device in on), None)
    params.devices = ctypes.cast(handles, ctypes.c_void_p)
    params.n_gpu_layers = gpu_layers if on else 0
    if not mmap:
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE
    pages, stopped = HugePages(), threading.Event()

    @llama.llama_progress_callback  # type: ignore[untyped-decorator]
    def loading(_progress: float, _data: Any) -> bool:
        pages.ask()  # the buffers are there, and nothing is in them when this is called first
        return not stopped.is_set()

    params.progress_callback = loading
    make, free = llama.llama_model_load_from_file, llama.llama_model_free
    with making(make, os.fsencode(path), params, free=free, stop=stopped.set) as loaded:
        yield loaded
