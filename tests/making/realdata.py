"""Real configs and tokenizers of the LFM2 family, which are not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("LFM2GGUF_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def path_of(name: str) -> Path:
    """A folder of :data:`DATA`, such as ``LFM2-1.2B`` or ``configs``."""
    return DATA / name


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where a folder is absent."""
    reason = f"{path_of(name)} is absent (LFM2GGUF_TEST_DATA may name another folder)"
    return pytest.mark.skipif(not path_of(name).is_dir(), reason=reason)
