"""What llama.cpp makes of a converted retrieval model, against transformers' vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import convert
from tests.lfm2.llama import embed
from tests.retrieval_checkpoints import CASES, SEQUENCES, make_retrieval
from tests.test_parity import ROOT

GOLDEN = {
    name: [np.array(x) for x in vectors]
    for name, vectors in json.loads(
        (ROOT / "tests/golden/embeddings.json").read_text(encoding="utf-8")
    )["cases"].items()
}


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_computes_the_same_vectors(name: str, tmp_path: Path) -> None:
    source = make_retrieval(CASES[name], tmp_path / name)
    path = convert(source, source, "F32", jobs=1).files[0].path
    for found, expected in zip(embed(path, SEQUENCES), GOLDEN[name], strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_golden_vectors_tell_the_directions_apart() -> None:
    """A causal model sees the same beginning alike whatever follows; the others do not."""
    first = {name: [x[0] for x in GOLDEN[name]] for name in CASES}
    apart = {name: np.abs(a - b).max() / np.abs(a).max() for name, (a, b, _) in first.items()}
    assert apart.pop("LFM2-ColBERT-350M") < 1e-6
    apart.pop("LFM2-Last-rows-of-32")  # pooled by the last token: different in any case
    assert min(apart.values()) > 0.01, apart
