"""Work on any ``concurrent.futures.Executor``: processes here, or a cluster's workers.

A worker shares nothing with its caller but a file system: what it is given is pickled here, with
absolute paths, and it imports what it needs. Work that fails because its worker was lost is done
again; so each piece must be safe to do twice. What is an error of ours is raised at once.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, TypeVar
from uuid import uuid4

from lfm2gguf.errors import Lfm2ggufError, RuntimeFailureError

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 64  # pieces that are handed out and not done: bounds what the caller holds
TRIES = 3  # of a piece whose worker was lost


def spread(
    executor: Executor,
    do: Callable[[Item], Result],
    items: Iterable[Item],
    what: str,
    *,
    window: int = WINDOW,
) -> Generator[tuple[Item, Result], None, None]:
    """Do something to each item, and yield item and result as they come, in any order.

    Args:
        executor: what does it; it is neither made nor shut down here.
        do: a function of a module, which its workers import.
        items: each is pickled; they are taken as room is made.
        what: the work, for an error.
        window: pieces that are handed out at once.

    Raises:
        Lfm2ggufError: what ``do`` raised; the rest is not begun then.
        RuntimeFailureError: the executor is broken, or a piece has lost its worker too often.

    """
    rest = iter(items)
    running: dict[Future[Any], tuple[Item, int]] = {}
    try:
        while True:
            for item in islice(rest, window - len(running)):
                running[_submit(executor, do, item, what)] = (item, 1)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done, tries = running.pop(future)
                error = future.exception()
                if error is None:
                    yield done, future.result()
                elif isinstance(error, Lfm2ggufError):
                    raise error
                elif isinstance(error, BrokenExecutor) or tries == TRIES:
                    raise RuntimeFailureError(
                        f"{what}: the executor's workers failed ({type(error).__name__}: {error}); "
                        "see what ended them, then start again"
                    ) from error
                else:
                    running[_submit(executor, do, done, what)] = (done, tries + 1)
    finally:
        left = [future for future in running if not future.cancel()]
        wait(left)  # nobody writes any more when the caller goes on


def _submit(
    executor: Executor, do: Callable[[Item], Result], item: Item, what: str
) -> Future[Result]:
    try:
        # Dask takes two calls with equal arguments for one: a second try must be told from a first.
        return executor.submit(perform, portable((do, item)), uuid4().hex)
    except RuntimeError as error:  # BrokenExecutor, or one that was shut down
        raise RuntimeFailureError(f"{what}: the executor takes no work ({error})") from error


def portable(value: object) -> bytes:
    """Pickle a value, with every path in it absolute: its reader may be in another folder."""
    buffer = io.BytesIO()
    _Absolute(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def perform(payload: bytes, call: str = "") -> Any:
    """Do on a worker what :func:`portable` has packed: a function, and what it is called with.

    ``call`` is the call's own name, the same for no other.
    """
    do, item = pickle.loads(payload)  # noqa: S301 - our caller packed it
    return do(item)


class _Absolute(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if isinstance(value, PurePath):
            return Path, (str(Path(value).absolute()),)
        return NotImplemented
