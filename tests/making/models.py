"""Where the tests find a model to run: the example checkpoint, converted by the product."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"


@functools.cache
def tiny_gguf() -> Path:
    """Return the example model as a GGUF, or skip the test and say why.

    In F32, so that how requests are batched moves a logit by a millionth and decides no token.
    """
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    given = os.environ.get("LFM2GGUF_TEST_MODEL")
    if given:
        return Path(given)
    if not EXAMPLE.is_dir():
        pytest.skip(f"{EXAMPLE} is absent, and LFM2GGUF_TEST_MODEL names no GGUF")
    from lfm2gguf import convert

    folder = Path(tempfile.mkdtemp(prefix="lfm2gguf-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / "tiny-lfm2-F32.gguf"
    convert(EXAMPLE, target, "F32", jobs=1)
    return target
