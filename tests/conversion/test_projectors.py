"""Projectors in types of fewer bits, and types of single tensors: llama-quantize's bytes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import GGUFFile, convert, quantize
from lfm2gguf.conversion import Recipe
from tests.conversion.test_parity import ROOT
from tests.golden.make_projectors import CALLS
from tests.golden.summary import digest
from tests.making.multimodal import CASES, make_multimodal

GOLDEN = json.loads((ROOT / "tests/golden/projectors.json").read_text(encoding="utf-8"))["files"]


@pytest.fixture(scope="module", params=GOLDEN)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projectors") / request.param
    return make_multimodal(CASES[request.param], folder)


def recipe(call: str) -> Recipe:
    type, options = CALLS[call]
    values = [value for option, value in pairwise(options)
              if option == "--tensor-type"]  # fmt: skip
    return Recipe(type, pure="--pure" in options, tensor_type=values)


@pytest.mark.parametrize("call", CALLS)
def test_the_files_are_llama_quantizes(source: Path, tmp_path: Path, call: str) -> None:
    floats = tmp_path / "F32.gguf"
    convert(source, floats, "F32", projector=True, jobs=1)
    quantize(floats, tmp_path / "from-gguf.gguf", recipe(call), jobs=1)
    expected = GOLDEN[source.name][call]
    assert digest((tmp_path / "from-gguf.gguf").read_bytes()) == expected
    if call not in ("Q8_0", "F16"):  # of which the converter has its own
        convert(source, tmp_path / "direct.gguf", recipe(call), projector=True, jobs=1)
        assert digest((tmp_path / "direct.gguf").read_bytes()) == expected


@pytest.mark.parametrize("direct", [True, False])
def test_kernels_of_convolutions_stay(tmp_path: Path, direct: bool) -> None:
    """llama-quantize stops at them; the runtime has no convolution of other types."""
    folder = make_multimodal(CASES["LFM2.5-Audio-1.5B"], tmp_path / "audio")
    target, wanted = tmp_path / "Q4_0.gguf", Recipe("Q4_0", tensor_type=["conv=Q8_0"])
    if direct:
        convert(folder, target, wanted, projector=True, jobs=1)
    else:
        convert(folder, tmp_path / "bf16.gguf", "BF16", projector=True, jobs=1)
        quantize(tmp_path / "bf16.gguf", target, wanted, jobs=1)
    types: dict[str, Any] = {n: t.type.name for n, t in GGUFFile.open(target).tensors.items()}
    assert {type for name, type in types.items() if "conv" in name} == {"F32"}
    assert types["a.blk.1.attn_q.weight"] == "Q4_0"
