"""Vision and audio models, whole files against llama.cpp's programs (golden/make_multimodal.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import convert
from tests.conversion.test_parity import ROOT, check
from tests.making.multimodal import CASES, make_multimodal

GOLDEN = json.loads((ROOT / "tests/golden/multimodal.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module", params=CASES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multimodal") / request.param
    return make_multimodal(CASES[request.param], folder)


@pytest.mark.parametrize("part", ["text", "projector"])
def test_every_type_is_what_llama_cpp_writes(source: Path, part: str, tmp_path: Path) -> None:
    golden: dict[str, Any] | None = GOLDEN[source.name].get(part)
    if golden is None:
        pytest.skip(f"{source.name} is one file and has no {part} of its own")
    types = list(golden["files"])
    conversion = convert(source, tmp_path, types, projector=part == "projector", jobs=1)
    assert [file.type for file in conversion.files] == types
    for file in conversion.files:
        check(file.path, file.type, golden)
