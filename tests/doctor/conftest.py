"""Files that the doctor's tests change."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfm2gguf import convert
from tests.making.checkpoints import MOE_CASES, make


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file with experts; not to be changed."""
    name = "LFM2-8-experts"
    source = make(MOE_CASES[name], tmp_path_factory.mktemp("mixture") / name)
    return convert(source, source, "F16", jobs=1).files[0].path
