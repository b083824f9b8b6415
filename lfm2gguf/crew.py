"""Threads that share what can be cut, so that the bytes do not depend on how many they are.

The BLAS works with one thread (:mod:`lfm2gguf.blas`), and work is cut into the same
pieces whoever does them: a sum has one order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")

ROWS = 1024  # of a product that are computed together


class Crew:
    """Some threads; with one, work is done where it is asked for."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = usable_cores() if threads is None else threads
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def each(self, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Give the results in the items' order; no more than threads are held."""
        if self._pool is None:
            yield from map(do, items)
            return
        waiting = deque[Future[Result]]()
        for item in items:
            waiting.append(self._pool.submit(do, item))
            if len(waiting) >= self.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def all(self, do: Callable[[Item], object], items: Iterable[Item]) -> None:
        """Do something to each item."""
        for _ in self.each(do, items):
            pass

    def product(self, a: Floats, b: Floats) -> Floats:
        """Return ``a @ b``, some rows of ``a`` at a time."""
        out = np.empty((len(a), b.shape[1]), np.float32)
        self.all(lambda rows: np.matmul(a[rows], b, out=out[rows]), pieces(len(a), ROWS))
        return out


ALONE = Crew(1)


def pieces(count: int, size: int) -> list[slice]:
    """Cut ``count`` things into slices of ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def usable_cores() -> int:
    """Return how many processors this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
