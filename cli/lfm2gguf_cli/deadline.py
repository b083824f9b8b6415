"""The end of a process that was told to end, whatever its threads do."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading

GRACE = 1.0  # second to free the model in


def end_within(seconds: float) -> None:
    """End the process ``seconds`` (and a little) after the next signal, if it still runs then.

    A thread inside of C code cannot be stopped, and the main thread would wait for it. Python
    tells of the signal through a file, even while the main thread itself is busy in C. The exit
    code is 1, and where each thread was stuck stands on standard error.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reads, seconds), daemon=True).start()


def _wait(reads: int, seconds: float) -> None:
    os.read(reads, 1)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=2)
