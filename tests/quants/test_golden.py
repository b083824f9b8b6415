"""The kernels against digests of ggml's output, where ggml itself is not at hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lfm2gguf.quants import CODECS, quantize

from .samples import SAMPLES, sample

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kernels.json").read_text())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_weights_are_those_of_the_digests(name: str) -> None:
    assert hashlib.sha256(sample(name)).hexdigest()[:32] == GOLDEN["weights"][name]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("type", CODECS, ids=lambda type: type.name)
def test_bytes(type, name: str) -> None:
    digest = hashlib.sha256(quantize(sample(name), type)).hexdigest()[:32]
    assert digest == GOLDEN["blocks"][type.name][name]
