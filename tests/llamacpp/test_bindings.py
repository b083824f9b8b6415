"""llama-cpp-python's modules without its package, and with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def say(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_package_is_not_imported_and_has_the_same_modules_later() -> None:
    program = """
import sys
from lfm2gguf.llamacpp.bindings import bindings
theirs = bindings("llama_cpp"), bindings("_ggml")
assert "llama_cpp" not in sys.modules and "llama_cpp.llama" not in sys.modules
import llama_cpp
from llama_cpp import Llama, _ggml
import llama_cpp.llama_cpp as low
print(llama_cpp.llama_cpp is low is theirs[0], _ggml is theirs[1], Llama.__name__)
"""
    assert say(program).split() == ["True", "True", "Llama"]


def test_beside_threads_that_import_the_package() -> None:
    """None of them may find it without its names."""
    program = """
import sys, threading
from lfm2gguf.llamacpp.bindings import bindings
go, found = threading.Event(), []
def imported():
    go.wait()
    from llama_cpp import Llama
    found.append(Llama)
threads = [threading.Thread(target=imported) for _ in range(4)]
for thread in threads:
    thread.start()
go.set()
bindings("llama_cpp")
for thread in threads:
    thread.join()
print(len(found))
"""
    assert [say(program).strip() for _ in range(3)] == ["4"] * 3


def test_a_serving_command_does_without_it() -> None:
    """Nothing else runs when the load of a known file begins."""
    program = """
import sys
from lfm2gguf import llamacpp
llamacpp.devices()
print("llama_cpp" in sys.modules, "numpy" in sys.modules)
"""
    assert say(program).split() == ["False", "False"]
