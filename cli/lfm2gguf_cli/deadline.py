"""The end of a process that was told to end, whatever its threads do."""

from __future__ import annotations

import os
import signal
import threading
import time

GRACE = 1.0  # second to free the model in


def end_within(seconds: float) -> None:
    """End the process ``seconds`` (and a little) after the next signal, if it still runs then.

    A thread inside of C code cannot be stopped, and the main thread would wait for it. Python
    tells of the signal through a file, even while the main thread itself is busy in C.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reads, seconds), daemon=True).start()


def _wait(reads: int, seconds: float) -> None:
    os.read(reads, 1)
    time.sleep(seconds + GRACE)
    os.write(2, b"lfm2gguf: a request did not end in time: the process ends without it\n")
    os._exit(1)
