"""What llama.cpp and the reference make of a retrieval model, against transformers' vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.reference import retrieval as reference_retrieval
from lfm2gguf.reference.retrieval import RetrievalReference, full_attention
from tests.conversion.test_parity import ROOT
from tests.making.llama import embed
from tests.making.retrieval_checkpoints import CASES, SEQUENCES, make_retrieval

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


@pytest.mark.parametrize("name", CASES)
def test_the_reference_computes_the_same_vectors(name: str, tmp_path: Path) -> None:
    """From the checkpoint, and from its F32 file, which shares no name with it."""
    source = make_retrieval(CASES[name], tmp_path / name)
    path = convert(source, source, "F32", jobs=1).files[0].path
    sequences = [np.array(ids, np.int32) for ids in SEQUENCES]
    for reference in (
        RetrievalReference.from_checkpoint(Checkpoint.open(source)),
        RetrievalReference.from_gguf(GGUFFile.open(path)),
    ):
        for found, expected in zip(reference.embed(sequences), GOLDEN[name], strict=True):
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_attention_in_blocks_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((37, n, 8)).astype(np.float32) for n in (6, 2, 2))
    whole = full_attention(q, k, v)
    monkeypatch.setattr(reference_retrieval, "SCORE_BYTES", 4 * 6 * 37 * 5)
    np.testing.assert_allclose(full_attention(q, k, v), whole, atol=1e-6)


def test_the_golden_vectors_tell_the_directions_apart() -> None:
    """A causal model sees the same beginning alike whatever follows; the others do not."""
    first = {name: [x[0] for x in GOLDEN[name]] for name in CASES}
    apart = {name: np.abs(a - b).max() / np.abs(a).max() for name, (a, b, _) in first.items()}
    assert apart.pop("LFM2-ColBERT-350M") < 1e-6
    apart.pop("LFM2-Last-rows-of-32")  # pooled by the last token: different in any case
    assert min(apart.values()) > 0.01, apart
