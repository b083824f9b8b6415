"""Which kernels work: numba's where it is there and the weights are many, or as it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm2gguf.errors import MissingDependencyError, OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, kernels

ROOT = Path(__file__).parents[2]

needs_numba = pytest.mark.skipif(
    bool(kernels.why_not_compiled()), reason=str(kernels.why_not_compiled())
)


def run(program: str, **environment: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@needs_numba
def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")
    codec = CODECS[GGMLType.Q8_0]
    assert kernels.chosen() == "numba"
    assert kernels.encoder(codec, 1) is not None
    monkeypatch.setenv(kernels.VARIABLE, "NumPy")
    assert kernels.chosen() == "numpy"
    assert kernels.encoder(codec, 1 << 30) is None
    monkeypatch.setenv(kernels.VARIABLE, "fortran")
    with pytest.raises(OptionError, match="LFM2GGUF_KERNELS is 'fortran'; numpy and numba"):
        kernels.chosen()


@needs_numba
@pytest.mark.slow
def test_what_is_small_does_not_load_numba() -> None:
    program = """
import sys, numpy as np, lfm2gguf, lfm2gguf.quants as q
q.quantize(np.zeros((4, 256), np.float32), "Q4_K")
assert "numba" not in sys.modules
x = np.zeros((256, 1 << 16), np.float32)
q.quantize(x, "Q8_0")
assert "numba" in sys.modules
"""
    run(program, LFM2GGUF_KERNELS="")


@needs_numba
def test_where_numba_does_not_work() -> None:
    program = """
from lfm2gguf.quants import kernels
print(kernels.chosen(), kernels.why_not_compiled())
"""
    said = run(program, LFM2GGUF_KERNELS="", NUMBA_DISABLE_JIT="1")
    assert said == "numpy NUMBA_DISABLE_JIT is set; unset it\n"


def test_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")
    monkeypatch.setattr(kernels, "why_not_compiled", lambda: "numba is not installed: ...")
    with pytest.raises(MissingDependencyError, match="LFM2GGUF_KERNELS is numba, but numba is not"):
        kernels.chosen()
