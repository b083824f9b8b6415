"""Other work for the thread that owns the context: encoding media, embedding texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Jobs:
    """A queue of calls, made one at a time; adding and taking is for who holds the lock."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: Callable[[], Result]) -> Future[Result]:
        """Queue a call and return its future."""
        future: Future[Result] = Future()
        self._waiting.append((future, work))
        return future

    def take(self) -> Callable[[], None]:
        """Take the next job, as something to run; where there is none, it does nothing."""
        if not self._waiting:
            return lambda: None
        future, work = self._waiting.popleft()
        return lambda: _do(future, work)

    def fail(self, error: Exception) -> None:
        """Give all that wait an error in place of a result."""
        for future, _ in self._waiting:
            future.set_exception(error)


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # the waiting thread gets it
        future.set_exception(error)
