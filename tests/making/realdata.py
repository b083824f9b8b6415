"""Real configs, tokenizers and templates of the LFM2 family, which this repository does not hold.

The environment variable ``LFM2GGUF_TEST_DATA`` names the folder; tests that need it skip without.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

VARIABLE = "LFM2GGUF_TEST_DATA"
# Where the variable is not set, a path that nothing has and that says so in each reason.
DATA = Path(os.environ.get(VARIABLE) or f"${VARIABLE}")


def _absent(path: Path) -> str:
    return f"{path} is absent: set {VARIABLE} to a folder with real configs and tokenizers"


def path_of(name: str) -> Path:
    """Return a path below the folder, such as ``LFM2-1.2B`` or ``configs``; it may be absent."""
    return DATA / name


def real(name: str) -> Path:
    """Return a path below the folder, or skip the test that runs where it is absent."""
    if not path_of(name).exists():
        pytest.skip(_absent(path_of(name)))
    return path_of(name)


def needs(name: str) -> pytest.MarkDecorator:
    """Mark a test as skipped where a path below the folder is absent."""
    return pytest.mark.skipif(not path_of(name).exists(), reason=_absent(path_of(name)))


def each(pattern: str) -> list[ParameterSet]:
    """Return the files of a pattern as a test's parameters, or one that is skipped."""
    files = [pytest.param(path, id=path.stem) for path in sorted(DATA.glob(pattern))]
    return files or [pytest.param(DATA, marks=pytest.mark.skip(reason=_absent(path_of(pattern))))]
