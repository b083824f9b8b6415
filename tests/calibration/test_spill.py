"""What waits in files comes back as it was, in any order and from any thread."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.calibration.spill import Rows, Spill
from lfm2gguf.errors import OutputError


def test_arrays_come_back_in_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (0, 5), (7, 2))]
    with Spill(tmp_path) as spill:
        for array in arrays:
            spill.put(array.T.copy().T)  # not contiguous
        spill.rewind()
        for array in arrays:
            np.testing.assert_array_equal(spill.take(), array)
    assert not list(tmp_path.iterdir())


def test_rows_are_each_threads_own(tmp_path: Path) -> None:
    values = np.arange(4096 * 8, dtype=np.float32).reshape(4096, 8)
    rows = Rows(tmp_path, values)
    parts = [slice(start, start + 64) for start in range(0, 4096, 64)]

    def add(part: slice) -> None:
        for _ in range(10):
            rows[part] += np.float32(1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, parts))
    np.testing.assert_array_equal(rows[:], values + 10)
    np.testing.assert_array_equal(rows[100:103], values[100:103] + 10)
    assert rows[5:5].shape == (0, 8)
    rows.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["arrays", "rows"])
def test_a_full_disk_is_said_with_the_folder(kind: str, tmp_path: Path) -> None:
    class Full:
        def seek(self, place: int) -> None: ...

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    values = np.zeros((2, 2), np.float32)
    waiting: Any = Spill(tmp_path) if kind == "arrays" else Rows(tmp_path, values)
    waiting.close()
    waiting._file = Full()
    with pytest.raises(OutputError, match=f"{tmp_path}: no space left"):
        waiting.put(values) if kind == "arrays" else waiting.__setitem__(slice(0, 2), values)
