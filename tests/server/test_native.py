"""llama-server's own endpoints, paths with and without /v1, browsers, and the log."""

from __future__ import annotations

import logging
import time

import httpx
import pytest

from lfm2gguf import Runner
from tests.server.conftest import serving

CHAT = "/v1/chat/completions"


def test_tokens_there_and_back(url: str, runner: Runner) -> None:
    def tokenize(**body: object) -> object:
        return httpx.post(f"{url}/tokenize", json=body).json()["tokens"]

    text = "Hello <|im_end|>ü"
    ids = runner.tokens.encode(text, bos=False)
    assert tokenize(content=text) == ids
    assert tokenize(content=text, add_special=True) == [runner.tokens.bos, *ids]
    assert tokenize(content=["Hello", 7]) == [*runner.tokens.encode("Hello", bos=False), 7]
    assert tokenize(content=text, parse_special=False) != ids
    assert tokenize() == []
    back = httpx.post(f"{url}/detokenize", json={"tokens": ids}).json()
    assert back == {"content": text}
    pieces = httpx.post(f"{url}/tokenize", json={"content": "🐈", "with_pieces": True}).json()
    data = b"".join(bytes(p["piece"]) if isinstance(p["piece"], list) else p["piece"].encode()
                    for p in pieces["tokens"])  # fmt: skip
    assert data.decode() == "🐈"
    assert httpx.post(f"{url}/detokenize", json={"tokens": [10**7]}).status_code == 400


def test_the_prompt_and_its_tokens(url: str, runner: Runner) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    assert httpx.post(f"{url}/apply-template", json=body).json() == {"prompt": runner.render("Hi")}
    counted = httpx.post(f"{url}{CHAT}/input_tokens", json=body).json()
    assert counted == {"input_tokens": runner.count_tokens("Hi")}


def test_properties_and_slots(url: str, runner: Runner) -> None:
    props = httpx.get(f"{url}/props").json()
    assert props["total_slots"] == runner.parallel
    assert props["default_generation_settings"]["n_ctx"] == runner.context_size
    assert "im_start" in props["chat_template"]
    assert props["modalities"] == {"vision": False, "audio": False}
    assert "/" not in props["model_path"]
    slots = httpx.get(f"{url}/slots", params={"fail_on_no_slot": 1}).json()
    assert [slot["is_processing"] for slot in slots] == [False] * runner.parallel
    assert httpx.get(f"{url}/lora-adapters").json() == []


def test_paths_with_and_without_v1(url: str) -> None:
    for path in ("/models", "/models/tiny", "/health"):
        assert httpx.get(url + path).json() == httpx.get(f"{url}/v1{path}").json()
    ask = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    for path in ("/chat/completions", "/chat/completions/input_tokens"):
        assert httpx.post(url + path, json=ask).status_code == 200
    assert httpx.post(f"{url}/completions", json={"prompt": "x", "max_tokens": 1}).json()["choices"]
    assert httpx.get(f"{url}/v1/v1/models").status_code == 404
    for path in ("/v1/models", "/health", "/models"):
        head = httpx.head(url + path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == httpx.get(url + path).headers["content-length"]


def test_the_page_of_parameters(url: str) -> None:
    page = httpx.get(f"{url}/docs", timeout=100).text
    for word in ("/v1/chat/completions", "max_completion_tokens", "Has no effect."):
        assert word in page
    assert "<script" not in page
    assert "http" not in page.replace("http://", "https://").split("<style>")[1].lower()


def test_pages_of_other_origins(runner: Runner) -> None:
    asks = {"Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip

    def allowed(url: str, origin: str) -> str | None:
        preflight = httpx.options(url + CHAT, headers={"Origin": origin, **asks})
        answer = httpx.get(f"{url}/v1/models", headers={"Origin": origin})
        name = "access-control-allow-origin"
        assert preflight.headers.get(name) == answer.headers.get(name)
        assert preflight.is_success == (name in answer.headers)
        return answer.headers.get(name)

    with serving(runner, cors_origins=["https://chat.example"], api_key="k") as url:
        for origin in ("http://localhost:3000", "https://127.0.0.1", "https://chat.example"):
            assert httpx.options(url + CHAT, headers={"Origin": origin, **asks}).status_code == 200
        for origin in (
            "http://localhost.evil",
            "https://evil.example",
            "null",
            "http://localhost:1.evil",
        ):
            preflight = httpx.options(url + CHAT, headers={"Origin": origin, **asks})
            assert "access-control-allow-origin" not in preflight.headers
    with serving(runner, cors_origins=["*"]) as url:
        assert allowed(url, "https://any.example") == "*"
        assert allowed(url, "http://localhost:5173") == "*"


def test_the_log_holds_nothing_of_the_client_s(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lfm2gguf.server.access"):
        httpx.get(
            f"{url}/v1/models/sk-secret?key=sk-secret", headers={"Authorization": "sk-secret"}
        )
        httpx.get(f"{url}/sk-secret")
        httpx.request("SECRET", url + CHAT)
        body = {"messages": [{"role": "user", "content": "secret"}], "max_tokens": 2}
        httpx.post(url + CHAT, json=body)
        httpx.head(f"{url}/models")
        end = time.monotonic() + 10
        while "HEAD" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)  # the line comes behind the answer
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("access")]
    assert len(lines) == 5
    assert "secret" not in "".join(lines).lower()
    assert f"POST {CHAT} 200" in lines[-2]
    assert "HEAD /v1/models 200" in lines[-1]
