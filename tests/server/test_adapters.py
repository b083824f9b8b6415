"""Adapters as models by their own names; embeddings of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from lfm2gguf import Runner, convert, convert_lora
from lfm2gguf.errors import OptionError
from lfm2gguf.server import create_app
from lfm2gguf_cli.serve import _adapter
from tests.making.adapters import CASES, base, make_adapter
from tests.making.checkpoints import make
from tests.server.conftest import serving

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Who?"}], "temperature": 0,
                       "max_tokens": 3, "logprobs": True, "ignore_eos": True}  # fmt: skip


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("adapter")
    source = make(base(CASES["plain"]), folder / "base")
    model = convert(source, folder / "base.gguf", "F32", jobs=1).files[0].path
    peft = make_adapter(CASES["plain"], folder / "a", lora_alpha=24)
    adapter = convert_lora(peft, source, folder / "a.gguf").file.path
    with Runner(model, adapters={"legal": adapter}, context=256, threads=1) as runner:
        yield runner


def test_an_adapter_is_a_model_by_its_name(adapted: Runner) -> None:
    def answer(url: str, **change: Any) -> Any:
        found = httpx.post(f"{url}/v1/chat/completions", json={**ASK, **change}, timeout=60)
        assert found.status_code == 200, found.text
        body = found.json()
        return body["model"], [t["logprob"] for t in body["choices"][0]["logprobs"]["content"]]

    with serving(adapted) as url:
        ids = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        assert ids == ["tiny", "legal"]
        assert [a["name"] for a in httpx.get(f"{url}/lora-adapters").json()] == ["legal"]
        (name, plain), (other, legal) = answer(url), answer(url, model="legal")
        assert (name, other) == ("tiny", "legal")
        assert np.abs(np.subtract(plain, legal)).max() > 1e-3
        assert answer(url, lora=[{"id": 0, "scale": 1.0}])[1] == pytest.approx(legal, abs=1e-3)
        assert answer(url, lora=[{"id": 0, "scale": 0}])[1] == pytest.approx(plain, abs=1e-3)
        wrong = {**ASK, "lora": [{"id": 1, "scale": 1}]}
        refused = httpx.post(f"{url}/v1/chat/completions", json=wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora")
    with pytest.raises(OptionError, match="rename"):
        create_app(adapted, name="legal")


def test_how_an_adapter_is_given() -> None:
    assert _adapter("legal=/a/b=c.gguf") == ("legal", "/a/b=c.gguf")
    for wrong in ("legal", "=file", "legal="):
        with pytest.raises(Exception, match="NAME=FILE"):
            _adapter(wrong)


def test_embeddings_of_token_ids(embedding_model: Runner) -> None:
    """In this model's own numbering; another's are refused with a hint, where they can be told."""
    texts = ["one", "another"]
    ids = [embedding_model.tokens.encode(text) for text in texts]
    with serving(embedding_model) as url:

        def embed(given: Any) -> httpx.Response:
            return httpx.post(f"{url}/v1/embeddings", json={"input": given}, timeout=60)

        plain = [entry["embedding"] for entry in embed(texts).json()["data"]]
        for given in (ids, [row[1:] for row in ids]):  # with BOS and without
            answer = embed(given)
            found = [entry["embedding"] for entry in answer.json()["data"]]
            np.testing.assert_allclose(found, plain, atol=1e-6)
            assert "own tokenizer" in answer.headers["x-lfm2gguf-warning"]
        assert len(embed(ids[0]).json()["data"]) == 1
        refused = embed([[100_257]])
        assert refused.status_code == 400
        assert "check_embedding_ctx_length" in json.dumps(refused.json())
