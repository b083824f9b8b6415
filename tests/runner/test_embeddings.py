"""Embeddings against what transformers computes for the same checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import Runner, convert
from lfm2gguf.errors import ContextError, OptionError, UnsupportedError
from lfm2gguf.llamacpp import Model
from lfm2gguf.runner import maxsim
from tests.making.models import tiny_gguf
from tests.making.retrieval_checkpoints import CASES, SEQUENCES, make_retrieval

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "embeddings.json").read_text("utf-8"))
POOLED = "LFM2.5-Embedding-350M"


def opened(name: str, folder: Path) -> Runner:
    source = make_retrieval(CASES[name], folder / name)
    path = convert(source, source, "F32", jobs=1).files[0].path
    return Runner(path, device="cpu", threads=1, context=256)


@pytest.mark.parametrize("name", CASES)
def test_the_vectors_are_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to keys and values in F16; a wrong mask, pooling or head is off by 0.01 and more."""
    pooled = bool(CASES[name].pooling)
    with opened(name, tmp_path) as lfm:
        monkeypatch.setattr(Model, "tokenize", lambda _, text, **__: json.loads(text))
        texts = [json.dumps(sequence) for sequence in SEQUENCES]
        vectors = lfm.embed(texts, normalize=False)
    for found, expected in zip(vectors, map(np.array, GOLDEN["cases"][name]), strict=True):
        assert found.shape == (expected[0] if pooled else expected).shape
        assert found.dtype == np.float32
        rows = found[None] if pooled else found
        np.testing.assert_allclose(rows, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def test_prefixes_lengths_and_refusals(tmp_path: Path) -> None:
    with opened(POOLED, tmp_path) as lfm:
        query, document, plain = (lfm.embed("a", kind=k)[0] for k in ("query", "document", None))
        assert not np.allclose(query, document)
        np.testing.assert_array_equal(query, lfm.embed(["query: a"])[0])
        assert np.linalg.norm(plain) == pytest.approx(1)
        with pytest.raises(OptionError, match="kind"):
            lfm.embed("a", kind="passage")
        with pytest.raises(ContextError, match="split it"):
            lfm.embed("a b " * 4000)
    with (
        Runner(tiny_gguf(), device="cpu", threads=1) as writer,
        pytest.raises(UnsupportedError, match="made to write"),
    ):
        writer.embed("a")


def test_colbert_s_prefixes_are_tokens_and_its_punctuation_is_left_out(tmp_path: Path) -> None:
    name = "LFM2.5-ColBERT-350M"
    source = make_retrieval(CASES[name], tmp_path / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    unused = 1 + max(token["id"] for token in tokenizer["added_tokens"])
    unused = max(unused, len(tokenizer["model"]["vocab"]))
    for i, prefix in enumerate(("[Q] ", "[D] ")):
        added = {**tokenizer["added_tokens"][-1], "id": unused + i, "content": prefix}
        tokenizer["added_tokens"].append({**added, "special": False, "normalized": False})
    (source / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    path = convert(source, tmp_path, "F32", jobs=1).files[0].path
    with Runner(path, device="cpu", threads=1, context=256) as lfm:
        plain, query, document = (
            lfm.embed("a, b!", kind=k)[0] for k in (None, "query", "document")
        )
        assert lfm.tokens.encode("[Q] a", bos=False) == [unused, *lfm.tokens.encode("a", bos=False)]
        np.testing.assert_array_equal(query, lfm.embed("[Q] a, b!")[0])
        assert len(query) == len(plain) + 1
        whole = lfm.embed("[D] a, b!")[0]
        tokens = lfm.tokens.encode("[D] a, b!")
        kept = [lfm.tokens.bytes_of(token) not in (b",", b"!") for token in tokens]
        assert kept.count(False) == 2
        np.testing.assert_array_equal(document, whole[kept])


def test_maxsim_is_the_sum_of_the_best_matches() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 8)).astype(np.float32) for n in (3, 5))
    slow = sum(max(float(x @ y) for y in b) for x in a)
    assert maxsim(a, b) == pytest.approx(slow, rel=1e-5)
