"""``/v1/rerank`` over a socket, against NumPy on the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.runner.test_embeddings import POOLED, opened
from tests.server.conftest import serving

QUERY = "how to split a text"
TEXTS = ["a text is split by split", "join joins", "numbers are added", "how to split a text"]


@pytest.mark.parametrize("name", [POOLED, "LFM2.5-ColBERT-350M"])
def test_the_order_is_that_of_the_vectors(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as lfm:
        [query] = lfm.embed(QUERY, kind="query")
        vectors = [np.atleast_2d(v) for v in lfm.embed(TEXTS, kind="document")]
        similar = [np.atleast_2d(query) @ vector.T for vector in vectors]
        expected = [float(matrix.max(axis=1).sum()) for matrix in similar]
        best = sorted(range(4), key=lambda i: -expected[i])
        with serving(lfm) as url, httpx.Client(base_url=url) as http:

            def rank(**asked: Any) -> Any:
                answer = http.post("/v1/rerank", json={"query": QUERY, **asked})
                assert answer.status_code == 200, answer.text
                return answer.json()

            ranking = rank(model="tiny", documents=TEXTS)
            results = ranking["results"]
            assert [result["index"] for result in results] == best
            scores = [expected[i] for i in best]
            np.testing.assert_allclose([r["relevance_score"] for r in results], scores, rtol=1e-5)
            assert set(results[0]) == {"index", "relevance_score"}
            lengths = [len(lfm.tokenize(text)) for text in [QUERY, *TEXTS]]
            assert ranking["usage"]["total_tokens"] == sum(lengths)
            documents = [{"text": text, "id": i} for i, text in enumerate(TEXTS)]
            shown = rank(documents=documents, top_n=2, return_documents=True)["results"]
            assert [result["document"]["text"] for result in shown] == [TEXTS[i] for i in best[:2]]
            plain = rank(texts=TEXTS, return_text=True)
            assert [(r["index"], r["text"]) for r in plain] == [(i, TEXTS[i]) for i in best]
            np.testing.assert_allclose([r["score"] for r in plain], scores, rtol=1e-5)
            for bad in ({}, {"documents": []}, {"documents": ["a"], "texts": ["a"]}):
                answer = http.post("/v1/rerank", json={"query": QUERY, **bad})
                assert answer.status_code == 400


def test_a_model_that_writes_ranks_nothing(url: str) -> None:
    answer = httpx.post(f"{url}/v1/rerank", json={"query": QUERY, "documents": TEXTS})
    assert answer.status_code == 400
    assert "made to write" in answer.json()["error"]["message"]
