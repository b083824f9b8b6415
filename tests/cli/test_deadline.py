"""A process that was told to end does, whatever its threads do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

STUCK = """
import ctypes, signal, threading
from lfm2gguf_cli.deadline import end_within
libc = ctypes.CDLL(None)
block = lambda: [libc.sleep(60) for _ in range(60)]
signal.signal(signal.SIGTERM, lambda *_: None)
end_within({seconds})
print("ready", flush=True)
if {other}:
    threading.Thread(target=block).start()
else:
    block()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("other", [False, True], ids=["main", "other"])
def test_threads_inside_of_c_do_not_keep_the_process(other: bool) -> None:
    code = STUCK.format(seconds=0.1, other=other)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "in block" in said or "in <lambda>" in said) == (1, True)


def test_a_process_that_ends_by_itself_is_left_alone() -> None:
    code = "from lfm2gguf_cli.deadline import end_within; end_within(0)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
