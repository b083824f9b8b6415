"""The example model, converted to every type, and its reference computed once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf.verification import TYPE_LIMITS, Material, Session
from tests.making.models import EXAMPLE

CHUNKS = 2


@pytest.fixture(scope="session")
def example() -> Path:
    folder = Path(os.environ.get("LFM2GGUF_TEST_CHECKPOINT", EXAMPLE))
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"{folder} is absent; LFM2GGUF_TEST_CHECKPOINT may name a small checkpoint")
    return folder


@pytest.fixture(scope="session")
def files(example: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example model as a correct file of every type."""
    folder = tmp_path_factory.mktemp("files")
    targets = {name: folder / f"example-{name}.gguf" for name in TYPE_LIMITS}
    for name, target in targets.items():
        lfm2gguf.convert(example, target, name, jobs=1)
    return targets


@pytest.fixture(scope="session")
def session(example: Path) -> Session:
    return Session(example, Material(chunks=CHUNKS))
