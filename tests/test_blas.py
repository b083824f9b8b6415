"""The BLAS that NumPy uses: named, and held to one thread."""

from __future__ import annotations

import numpy as np

from lfm2gguf import blas


def test_it_is_named_as_numpy_was_built() -> None:
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = blas.describe()
    assert found.name.lower() in built["name"].lower() or "openblas" in built["name"].lower()
    assert found.version
    assert blas.recorded().startswith(str(found))


def test_one_thread_and_then_as_before() -> None:
    openblas = blas._openblas()
    if openblas is None:
        assert "threads as it chose" in blas.recorded()
        return
    before = openblas.threads()
    openblas.set_threads(2)
    try:
        with blas.one_thread():
            assert openblas.threads() == 1
        assert openblas.threads() == 2
    finally:
        openblas.set_threads(before)
    assert blas.describe().kernels


def test_the_last_of_several_holders_gives_the_threads_back() -> None:
    openblas = blas._openblas()
    if openblas is None:
        with blas.one_thread() as threads:
            assert threads == 1
        return
    before = openblas.threads()
    openblas.set_threads(2)
    first, second = blas.one_thread(), blas.one_thread()
    try:
        assert first.__enter__() == 2
        assert second.__enter__() == 1
        first.__exit__(None, None, None)
        assert openblas.threads() == 1
        second.__exit__(None, None, None)
        assert openblas.threads() == 2
    finally:
        openblas.set_threads(before)
