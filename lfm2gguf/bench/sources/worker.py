"""A thread of its own for llama.cpp to compute from.

An OpenMP build of llama.cpp keeps a team of threads for every thread that ever computed. Where
the teams together have more threads than the machine has cores, GNU's OpenMP lets all of them
sleep at every barrier instead of waiting busily (libgomp, ``gomp_throttled_spin_count``), which
costs a small model nine tenths of its speed. A team ends with its thread: so whatever computes
before something else is measured does it here, and the thread ends with it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Result = TypeVar("Result")


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the main thread: it must not wake this one, or the team with its mask."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


class Worker:
    """One thread, until it is closed. ``stopped`` tells long work that nobody waits for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "lfm2gguf-bench", _leave_interrupts)
        self.stopped = Event()

    def call(self, work: Callable[[], Result]) -> Result:
        """Run a call in the thread and wait for it; an interrupt stops it."""
        try:
            return self._pool.submit(work).result()
        except KeyboardInterrupt:
            self.stopped.set()
            raise

    def close(self) -> None:
        """Wait for the thread to end."""
        self._pool.shutdown()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
