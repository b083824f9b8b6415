"""The C library: loaded at the first use, never at import, and its log kept quiet."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from lfm2gguf.errors import MissingDependencyError, RuntimeFailureError
from lfm2gguf.install import install_command
from lfm2gguf.llamacpp.backend import library_help
from lfm2gguf.llamacpp.bindings import bindings, bindings_version
from lfm2gguf.llamacpp.companions import load_companions

logger = logging.getLogger("lfm2gguf.llamacpp")

_load_lock = threading.RLock()
_captures: list[list[str]] = []


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Say what is to be done where llama-cpp-python, or a library of it, does not load.

    Raises:
        MissingDependencyError: it is absent, or cannot be loaded.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"llama-cpp-python is needed to run a model: {install_command('run')} ({error})"
        ) from error
    except (OSError, RuntimeError) as error:  # the package is there, its shared library is not
        raise MissingDependencyError(
            f"llama-cpp-python is installed but its library does not load ({error}); "
            f"{library_help(str(error))}reinstall it for this machine: "
            "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        ) from error


@functools.cache
def library() -> Any:
    """Return the module of C functions, loaded once, its log routed to :data:`logger`.

    Raises:
        MissingDependencyError: llama-cpp-python is absent, or cannot be loaded.
    """
    load_companions()
    with loading():
        llama_cpp = bindings("llama_cpp")
    llama_cpp.llama_log_set(log_callback(), None)
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache
def log_callback() -> Any:
    """Return the C function that takes the library's lines."""
    llama_cpp = bindings("llama_cpp")
    unfinished: list[str] = []  # a line may arrive in pieces

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
    def on_log_from_c(_level: int, text: bytes | None, _user: object) -> None:
        unfinished.append((text or b"").decode("utf-8", "replace"))
        if not unfinished[-1].endswith("\n"):
            return
        line = "".join(unfinished).rstrip()
        unfinished.clear()
        for capture in _captures:
            capture.append(line)
        logger.debug("%s", line)

    return on_log_from_c


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what the C code says, so that an error can quote it. Loads run one at a time."""
    with _load_lock:
        library().llama_log_set(log_callback(), None)  # others in this process set theirs
        lines: list[str] = []
        _captures.append(lines)
        try:
            yield lines
        finally:
            _captures.pop()  # the last one: remove() would take another that has the same lines


@contextlib.contextmanager
def unheard_log() -> Iterator[None]:
    """Let what the C code says go nowhere.

    A load says a thousand lines. For each it would wait until Python's other threads let it in:
    where these import modules meanwhile, as at a server's start, it would hardly get on.
    """
    llama = library()
    # a function of the library that looks at no argument: one of Python's would wait, too
    nowhere = ctypes.cast(llama.llama_supports_mmap, llama.llama_log_callback)
    with _load_lock:
        llama.llama_log_set(nowhere, None)
        try:
            yield
        finally:
            llama.llama_log_set(log_callback(), None)


@contextlib.contextmanager
def making(
    make: Callable[..., Any],
    *arguments: Any,
    free: Callable[[Any], None],
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], Any]]:
    """Let a C function make something, and yield the function that waits for it and hands it over.

    It runs in a thread of its own, as an exception in what it calls of Python's (progress, lines
    of a log) is lost: Python handles signals in the main thread, so Ctrl-C would be one. Where
    this thread is interrupted meanwhile, or does not want it any more, the function is told to
    ``stop``, and what it has made is freed.
    """
    taken = False
    with ThreadPoolExecutor(1) as worker:
        made = _begin_from_c(worker, make, *arguments)

        def take() -> Any:
            nonlocal taken
            found = made.result()
            taken = True
            return found

        try:
            yield take
        finally:
            if not taken:
                _end_from_c(made, free, stop)


def made_by(make: Callable[..., Any], *arguments: Any, free: Callable[[Any], None]) -> Any:
    """Return what a C function makes that calls Python's, as :func:`making` lets it."""
    with making(make, *arguments, free=free) as take:
        return take()


def _begin_from_c(
    worker: ThreadPoolExecutor, make: Callable[..., Any], *arguments: Any
) -> Future[Any]:
    """Begin, with signals put off as in :func:`_end_from_c`: nobody would know of the thread."""
    return worker.submit(make, *arguments)


def _end_from_c(made: Future[Any], free: Callable[[Any], None], stop: Callable[[], None]) -> None:
    """Stop the thread in C code: the process must not end under it, though Ctrl-C comes again.

    The command line waits with signals in functions of such a name; elsewhere they are put off.
    """
    stop()
    while not made.done():
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            wait([made])
    if pointer := made.result():
        free(pointer)


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[bytes]]:
    """Collect the lines C code writes to standard error past its log, as the grammar parser does.

    The file descriptor belongs to the whole process: keep it short, and write back what other
    threads may have said meanwhile.
    """
    lines: list[bytes] = []
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield lines
        return
    with _load_lock, tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file


def last_words(lines: Sequence[str], count: int = 3) -> str:
    """Return what the library said last, for an error to quote."""
    said = [line for line in lines if line.strip(" .")]
    return " / ".join(said[-count:]) or "no reason was given"


def build_info() -> dict[str, str]:
    """Return the versions of llama-cpp-python and llama.cpp, and the CPU features compiled in."""
    llama = library()
    return {
        "llama_cpp_python": bindings_version(),
        "llama.cpp": llama.llama_version().decode(),
        "system": llama.llama_print_system_info().decode().strip(),
    }


class Closed:
    """Stands in for the library in a closed object: C code must not see freed pointers."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeFailureError("the model or context is closed")
