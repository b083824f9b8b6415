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


def pairs(digests: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    return [(type, name) for type, of_type in digests.items() for name in of_type]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_weights_are_those_of_the_digests(name: str) -> None:
    assert digest(sample(name)) == GOLDEN["weights"][name]


def test_the_importance_is_that_of_the_digests() -> None:
    assert digest(importance(KIND)) == GOLDEN["importance"]


def test_every_type_has_digests() -> None:
    assert {type.name for type in CODECS} == set(GOLDEN["blocks"]) | set(WEIGHTED)


@pytest.mark.parametrize(("type", "name"), pairs(GOLDEN["blocks"]))
def test_bytes(type: str, name: str) -> None:
    assert digest(quantize(sample(name), type)) == GOLDEN["blocks"][type][name]


@pytest.mark.parametrize(("type", "name"), pairs(WEIGHTED))
def test_bytes_with_importance(type: str, name: str) -> None:
    assert digest(quantize(sample(name), type, importance(KIND))) == WEIGHTED[type][name]
