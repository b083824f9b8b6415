"""A process that was told to end does, whatever its threads do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

STUCK = """
import ctypes, signal, threading
from lfm2gguf_cli.deadline import end_within
libc = ctypes.{library}(None)
block = lambda: [libc.sleep(60) for _ in range(60)]
signal.signal(signal.SIGTERM, lambda *_: None)
end_within({seconds})
print("ready", flush=True)
if {other}:
    threading.Thread(target=block).start()
else:
    block()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("other", [False, True], ids=["main", "other"])
def test_threads_inside_of_c_do_not_keep_the_process(other: bool) -> None:
    returned, said = ended(STUCK.format(seconds=0.1, other=other, library="CDLL"))
    assert (returned, "in block" in said or "in <lambda>" in said) == (1, True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_nor_does_one_that_holds_the_interpreter() -> None:
    returned, _ = ended(STUCK.format(seconds=0.1, other=False, library="PyDLL"))
    assert returned == -signal.SIGKILL


def ended(code: str) -> tuple[int, str]:
    """Run a program, end it by SIGTERM when it is ready; its exit code and what it says."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_process_that_ends_by_itself_is_left_alone() -> None:
    code = "from lfm2gguf_cli.deadline import end_within; end_within(0)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
