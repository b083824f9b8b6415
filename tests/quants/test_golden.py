"""The kernels against digests of ggml's output, where ggml itself is not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lfm2gguf.quants import CODECS, quantize
from tests.golden.make_kernels import KIND, digest

from .samples import SAMPLES, importance, sample

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kernels.json").read_text())
WEIGHTED = GOLDEN["blocks with importance"]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_weights_are_those_of_the_digests(name: str) -> None:
    assert digest(sample(name)) == GOLDEN["weights"][name]


def test_the_importance_is_that_of_the_digests() -> None:
    assert digest(importance(KIND)) == GOLDEN["importance"]


def test_every_type_has_digests() -> None:
    assert {type.name for type in CODECS} == set(GOLDEN["blocks"]) | set(WEIGHTED)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("type", GOLDEN["blocks"])
def test_bytes(type: str, name: str) -> None:
    assert digest(quantize(sample(name), type)) == GOLDEN["blocks"][type][name]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("type", WEIGHTED)
def test_bytes_with_importance(type: str, name: str) -> None:
    assert digest(quantize(sample(name), type, importance(KIND))) == WEIGHTED[type][name]
