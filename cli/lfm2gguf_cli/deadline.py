"""The end of a process that was told to end, whatever its threads do."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading

GRACE = 1.0  # second to free the model in
# Run by an interpreter of its own: passes on that a signal came, and kills its parent if that still
# holds its end of the pipe when the time is over.
WATCHER = """
import os, select, signal, sys, time
seconds, parent = float(sys.argv[1]), os.getppid()
if os.read(0, 1):
    end = time.monotonic() + seconds
    os.write(1, b"!")
    while select.select([0], [], [], max(0, end - time.monotonic()))[0]:
        if not os.read(0, 64):
            sys.exit()
    if os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)
"""


def end_within(seconds: float) -> None:
    """End the process ``seconds`` (and a little) after the next signal, if it still runs then.

    A thread inside of C code cannot be stopped, and the main thread would wait for it. Python
    tells of the signal through a file, even while the main thread itself is busy in C. The exit
    code is 1, and where each thread was stuck stands on standard error. Where C code holds the
    interpreter's lock, so that no thread runs, another process kills this one a second later.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    told = _watched(reads, seconds + 2 * GRACE)
    threading.Thread(target=_wait, args=(told, seconds), daemon=True).start()


def _watched(reads: int, seconds: float) -> int:
    """Start the watcher; return where it says that a signal came (without one: ``reads``)."""
    if sys.platform == "win32" or not sys.executable:
        return reads
    command = [sys.executable, "-I", "-S", "-c", WATCHER, str(seconds)]
    passes_on, says = os.pipe()
    try:
        process = subprocess.Popen(
            command, stdin=reads, stdout=says, stderr=subprocess.DEVNULL, start_new_session=True
        )  # of its own session: Ctrl-C in a terminal is not for it
    except OSError:  # no process can be started here
        return reads
    finally:
        os.close(says)
    _watchers.append(process)
    os.close(reads)
    return passes_on


_watchers: list[subprocess.Popen[bytes]] = []  # so that none is collected while it runs


def _wait(told: int, seconds: float) -> None:
    if os.read(told, 1):
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=2)
