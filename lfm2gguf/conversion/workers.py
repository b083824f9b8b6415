"""Workers that do tasks: threads where the kernels are compiled, processes where NumPy's work.

Compiled kernels release the interpreter's lock for a whole tile, so threads run side by side.
NumPy's arrays are small, and threads would change hands at the lock at every operation: hence
processes. Not multiprocessing: its children import the caller's main module again and outlive
a parent that is killed. A worker process here is an interpreter that reads tasks from its
standard input; when the parent goes, however it goes, the input ends and so does the worker.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager

from lfm2gguf.conversion.tasks import Files, Task, run
from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf.executors import spread

Result = tuple[Task, list[float]]
Do = Callable[[Task], list[float]]

_START = "import sys; sys.path[:] = {path!r}; from lfm2gguf.conversion.workers import main; main()"


def run_all(
    tasks: Iterable[Task], jobs: int, *, threads: bool = False
) -> Generator[Result, None, None]:
    """Run all tasks with ``jobs`` workers, yielding each as it is done (in any order).

    Raises:
        Lfm2ggufError: what a task raised; the other workers are stopped then.

    """
    if jobs == 1:
        yield from _run_here(tasks)
        return
    pending, results = iter(tasks), queue.SimpleQueue[Result | BaseException | None]()
    lock, stop = threading.Lock(), threading.Event()

    def feed(worker: AbstractContextManager[Do]) -> None:
        """Give one worker tasks until there are none."""
        try:
            with worker as do:
                while not stop.is_set():
                    with lock:
                        task = next(pending, None)
                    if task is None:
                        break
                    results.put((task, do(task)))
            results.put(None)
        except BaseException as error:
            results.put(error)

    processes: list[_Process] = []
    feeders: list[threading.Thread] = []
    try:
        processes.extend(_Process() for _ in range(0 if threads else jobs))
        for i in range(jobs):
            worker = _here(stop) if threads else contextlib.nullcontext(processes[i].do)
            feeders.append(threading.Thread(target=feed, args=[worker], daemon=True))
            feeders[-1].start()
        running = jobs
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stop.set()
        for process in processes:
            process.stop()
        for feeder in feeders:  # the files are closed before they get their names, or go
            feeder.join()


@contextlib.contextmanager
def _here(stop: threading.Event) -> Iterator[Do]:
    """A worker in the thread that gives it tasks: it stops within a tile."""
    with contextlib.closing(Files()) as files:
        yield lambda task: run(task, files, stop.is_set)


def _run_here(tasks: Iterable[Task]) -> Iterator[Result]:
    with contextlib.closing(Files()) as files:
        for task in tasks:
            yield task, run(task, files)


def run_on(executor: Executor, tasks: Iterable[Task]) -> Generator[Result, None, None]:
    """Run all tasks on an executor's workers, which see the same files.

    Raises:
        Lfm2ggufError: what a task raised, or the executor is broken; no task runs then.

    """
    yield from spread(executor, do_alone, tasks, "writing")


def do_alone(task: Task) -> list[float]:
    """Run a task with files of its own, which are closed, and so written, when it is done."""
    with contextlib.closing(Files()) as files:
        return run(task, files)


class _Process:
    """The parent's end of one worker process."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _START.format(path=sys.path)]
        # No BLAS runs there; its threads would only take memory.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # In a session of its own, where Ctrl-C on the terminal does not reach it: that is the
        # parent's to handle, at any moment.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def do(self, task: Task) -> list[float]:
        """Run a task, and raise what it raised."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(task, self.process.stdin)
            self.process.stdin.flush()
            answer: list[float] | BaseException = pickle.load(self.process.stdout)  # noqa: S301
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = self.process.wait()
            raise Lfm2ggufError(
                f"a worker process ended with code {code} while it worked on {task.name!r} "
                "(killed because memory ran out?); try fewer jobs (--jobs)"
            ) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        """End the worker, whatever it is doing, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def main() -> None:
    """Answer each task read from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without sessions
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with contextlib.closing(Files()) as files, contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task: Task = pickle.load(tasks)  # noqa: S301
            try:
                answer: list[float] | Exception = run(task, files)
            except Exception as error:
                answer = error
            pickle.dump(answer, answers)
            answers.flush()
