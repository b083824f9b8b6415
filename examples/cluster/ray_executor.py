"""A Ray cluster as a ``concurrent.futures.Executor``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import ray


class RayExecutor(Executor):
    """Submit to Ray; ``options`` are those of ``ray.remote``, such as ``num_cpus``.

    What a lost worker was doing Ray does again by itself (``max_retries``).
    """

    def __init__(self, **options: Any) -> None:
        self._options = {"num_cpus": 1, "max_retries": 3, **options}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = ray.remote(**self._options)(fn).remote(*args, **kwargs).future()
        return future
