"""Keys, limits, errors of one shape, and what Prometheus is told."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lfm2gguf import Runner
from lfm2gguf.server import Limits
from tests.making.runners import wait_until
from tests.server.conftest import serving, wait_until_idle

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What is this?"}], "temperature": 0}
# Hot, so that nothing repeats and can be guessed: it is to take long.
LONG = {**ASK, "max_tokens": 1500, "ignore_eos": True, "temperature": 2.0}


def error(answer: httpx.Response) -> dict[str, Any]:
    """The body of an error, whose shape is always the same."""
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


def chat(url: str, body: Any = ASK, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/chat/completions",
        content=json.dumps(body),
        headers={"Content-Type": "application/json", **(headers or {})},
        timeout=600,  # four long answers at once, on a machine that is busy
    )


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages.0.role", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"tempature": 1}, "tempature", "unknown_parameter"),
        ({"logit_bias": {"": 1}}, "logit_bias", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tool_choice": {"type": "robot", "function": {"name": "a"}}}, "tool_choice",
         "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema":
            {"type": "nonsense"}}}}, None, None),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema":
            {"type": "string", "minLength": 100_000_000}}}}, None, None),
        ({"chat_template_kwargs": {"messages": []}}, None, None),
        ({"messages": [{"role": "user", "content": "a " * 5000}]}, None, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url":
            {"url": "data:image/png;base64,AAAA"}}]}]}, None, None),
    ],
)  # fmt: skip
def test_bad_requests(url: str, change: dict[str, Any], param: str | None, code: str) -> None:
    answer = chat(url, {**ASK, **change})
    assert answer.status_code == 400, answer.text
    found = error(answer)
    assert (found["type"], found["code"]) == ("invalid_request_error", code)
    assert param is None or found["param"].startswith(param)


def test_what_is_no_json_and_no_place(url: str) -> None:
    address, json_type = f"{url}/v1/chat/completions", {"Content-Type": "application/json"}
    for content in (b"{", b'{"a": "\xff"}', b"[" * 100_000):
        answer = httpx.post(address, content=content, headers=json_type)
        assert (answer.status_code, error(answer)["code"]) == (400, "invalid_json")
    answer = httpx.post(address, content=json.dumps(ASK), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in error(answer)["message"]
    assert error(httpx.get(f"{url}/v1/nothing"))["message"]
    assert httpx.get(f"{url}/v1/nothing").status_code == 404
    assert httpx.get(f"{url}/v1/chat/completions").status_code == 405


def test_a_key(runner: Runner) -> None:
    with serving(runner, api_key="secret") as url:
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            for path in ("/v1/models", "/metrics", "/openapi.json"):
                answer = httpx.get(url + path, headers=headers)
                assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
            assert chat(url, headers=headers).status_code == 401
        good = {"Authorization": "Bearer secret"}
        assert chat(url, {**ASK, "max_tokens": 2}, headers=good).status_code == 200


def test_a_body_that_is_too_large(runner: Runner) -> None:
    with serving(runner, limits=Limits(body_bytes=1000)) as url:
        answer = chat(url, {**ASK, "user": "x" * 2000})
        assert (answer.status_code, error(answer)["code"]) == (413, "request_too_large")

        def pieces() -> Any:
            for _ in range(100):
                yield b" " * 100

        answer = httpx.post(f"{url}/v1/chat/completions", content=pieces())  # no length announced
        assert answer.status_code == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "Zstd", "identity, gzip"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_body_that_is_encoded(url: str, path: str, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    body = gzip.compress(json.dumps(ASK).encode())
    answer = httpx.post(url + path, content=body, headers=headers)
    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "identity"
    assert "without Content-Encoding" in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_says_it_is_not(url: str, encoding: str) -> None:
    assert chat(url, headers={"Content-Encoding": encoding}).status_code == 200


def test_a_body_that_does_not_come(runner: Runner) -> None:
    with serving(runner, limits=Limits(body_seconds=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
                         b"Content-Length: 100\r\n\r\n{")  # fmt: skip
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_prompt_that_is_too_long(runner: Runner) -> None:
    with serving(runner, limits=Limits(prompt_tokens=8)) as url:
        answer = chat(url)
        assert (answer.status_code, error(answer)["code"]) == (400, "context_length_exceeded")


@pytest.mark.usefixtures("slow")
def test_an_answer_that_takes_too_long(runner: Runner) -> None:
    with serving(runner, limits=Limits(seconds=1.5)) as url:  # of three; a busy machine begins late
        answer = chat(url, LONG)
        assert (answer.status_code, error(answer)["code"]) == (504, "timeout")
        wait_until_idle(runner)
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json={**LONG, "stream": True}, timeout=60
        ) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert answer.status_code == 200  # it had begun: the last event tells
        assert '"code":"timeout"' in lines[-1]
    wait_until_idle(runner)


@pytest.mark.slow
def test_a_full_queue(runner: Runner) -> None:
    wait_until_idle(runner)  # from what other tests have left
    with serving(runner, limits=Limits(queue=0)) as url:
        streams = [threading.Thread(target=chat, args=(url, LONG)) for _ in range(runner.parallel)]
        for stream in streams:
            stream.start()
        wait_until(lambda: runner.load.running == runner.parallel)
        answer = chat(url)
        assert (answer.status_code, error(answer)["code"]) == (429, "queue_full")
        assert answer.headers["retry-after"] == "1"
        for stream in streams:
            stream.join()
        assert chat(url, {**ASK, "max_tokens": 2}).status_code == 200
    wait_until_idle(runner)


def test_who_hangs_up_frees_the_place_at_once(runner: Runner, url: str, slow: list[int]) -> None:
    wait_until_idle(runner)
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=LONG, timeout=0.3)
        wait_until_idle(runner)
        assert len(slow) < LONG["max_tokens"]
        if stream:
            with httpx.stream(
                "POST", f"{url}/v1/chat/completions", json={**LONG, "stream": True}, timeout=60
            ) as answer:
                lines = answer.iter_lines()  # held: to drop it is to hang up
                next(lines)
                wait_until(lambda: runner.load.running == 1)
            wait_until_idle(runner)
            assert len(slow) < LONG["max_tokens"]


@pytest.mark.slow
def test_health_answers_while_four_compute(runner: Runner, url: str) -> None:
    wait_until_idle(runner)
    threads = [threading.Thread(target=chat, args=(url, LONG)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: runner.load.running == 4)
    for path in ("/health", "/metrics", "/v1/models"):
        assert httpx.get(url + path).status_code == 200
    assert runner.load.running == 4  # it was answered beside them, not after
    for thread in threads:
        thread.join()
    wait_until_idle(runner)


def test_metrics(url: str) -> None:
    def values() -> dict[str, float]:
        text = httpx.get(f"{url}/metrics").text
        return {
            sample.name + str(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = values()
    assert chat(url, {**ASK, "max_tokens": 5, "ignore_eos": True}).status_code == 200
    after = values()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    ok = "lfm2gguf_requests_total[('path', '/v1/chat/completions'), ('status', '200')]"
    assert grown(ok) == 1
    assert grown("lfm2gguf_generated_tokens_total[]") == 5
    assert grown("lfm2gguf_time_to_first_token_seconds_count[]") == 1
    prompt = [
        grown(f"lfm2gguf_prompt_tokens_total[('source', '{s}')]") for s in ("computed", "cache")
    ]
    assert sum(prompt) > 5
    assert grown("lfm2gguf_tokens_per_second_count[('phase', 'decode')]") == 1
    for name in ("running", "waiting", "held_tokens", "state_bytes"):
        assert after[f"lfm2gguf_{name}[]"] >= 0
    assert after["process_resident_memory_bytes[]"] > 1e6


def test_grammars_of_clients_are_bounded(runner: Runner) -> None:
    """An ambiguous one takes llama.cpp for ever; the operator may trust clients all the same."""
    harmless = {**ASK, "max_tokens": 3, "grammar": 'root ::= ("a"? | "a"?) "b"'}
    recursive = {**ASK, "max_tokens": 3, "grammar": 'root ::= "a" t | "b"\nt ::= "a" root | "a" t'}
    with serving(runner) as url:
        for grammar in ('root ::= (("a"?){30}){30}', 'root ::= ("a" | "a")*'):
            refused = chat(url, {**ASK, "grammar": grammar})
            assert (refused.status_code, error(refused)["param"]) == (400, "grammar")
            assert "--any-grammar" in error(refused)["message"]
        assert chat(url, {**ASK, "max_tokens": 3, "guided_choice": ["a", "b"]}).status_code == 200
        assert chat(url, harmless).status_code == 200
    trusting = Limits(any_grammar=True)
    twice = {**ASK, "max_tokens": 3, "grammar": 'root ::= ("a" | "a")* "b"'}
    with serving(runner, limits=trusting) as url:
        assert chat(url, twice).status_code == 200
        assert chat(url, recursive).status_code == 200


DEEP = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}, {
        "role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "DEEP"}}]}]}),
    ("/v1/chat/completions", {**ASK, "metadata": {"x": "DEEP"}}),
    ("/v1/responses", {"input": "x", "max_output_tokens": 16, "metadata": {"x": "DEEP"}}),
    ("/v1/responses", {"input": "x", "max_output_tokens": 16, "text": {"format": {
        "type": "json_schema", "name": "x", "schema": {"enum": ["DEEP"]}}}}),
    ("/v1/messages", {"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], "tools": [
        {"name": "f", "input_schema": {"type": "object", "default": "DEEP"}}]}),
)  # fmt: skip


@pytest.mark.parametrize(("path", "body"), DEEP)
@pytest.mark.parametrize("form", ["[]", '{"]":}'])
def test_what_nests_too_deep(url: str, path: str, body: dict[str, Any], form: str) -> None:
    for levels in (90, 150, 250, 450, 700, 990):  # json itself reads about 990
        value = form[:-1] * levels + "1" + form[-1] * levels
        content = json.dumps(body).replace('"DEEP"', value)
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{url}{path}", content=content, headers=headers, timeout=60)
        assert answer.status_code < 500, (levels, answer.text)
        if levels > 200:
            assert answer.status_code == 400


HALF = r"\ud83d"
HALVES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": HALF}], "max_tokens": 1,
                             "model": HALF, "stop": HALF, "response_format": {
                                 "type": "json_schema",
                                 "json_schema": {"name": "a", "schema": {"const": HALF}}}},
    "/v1/completions": {"prompt": [HALF, "a"], "echo": True, "max_tokens": 1, "logprobs": 1},
    "/v1/responses": {"input": HALF, "instructions": HALF, "max_output_tokens": 1,
                      "metadata": {"a": HALF}},
    "/v1/messages": {"messages": [{"role": "user", "content": HALF}], "max_tokens": 1,
                     "model": HALF, "system": HALF, "stop_sequences": [HALF]},
    "/apply-template": {"messages": [{"role": "user", "content": HALF}]},
    "/tokenize": {"content": HALF, "with_pieces": True},
}  # fmt: skip


@pytest.mark.parametrize("path", HALVES)
@pytest.mark.parametrize("half", [HALF, r"\uDE00", r"\ud83dx", r"\ud83d\ud83d", r"\\\ud83d"])
def test_half_of_a_character(url: str, path: str, half: str) -> None:
    """What JavaScript sends of a text that it has cut within an emoji."""
    content = json.dumps(HALVES[path]).replace(json.dumps(HALF)[1:-1], half)
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}{path}", content=content, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (r"a\ud83d\ude00b", "a\N{GRINNING FACE}b"),
        (r"a\\ud83d", r"a\ud83d"),  # a backslash, and then letters
        (r"\\\ud83d", "\\\N{REPLACEMENT CHARACTER}"),
        (r"\ud83d\ude00\ude00", "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"),
        (r"\ud83d\u0041", "\N{REPLACEMENT CHARACTER}A"),
        (r"\u4e2d", "\u4e2d"),
    ],
)
def test_characters_that_are_whole_stay(url: str, sent: str, kept: str) -> None:
    content = json.dumps({"prompt": "TEXT", "echo": True, "max_tokens": 0}).replace("TEXT", sent)
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}/v1/completions", content=content, headers=headers, timeout=60)
    assert answer.json()["choices"][0]["text"] == kept


def test_brackets_in_texts_are_none(url: str) -> None:
    text = 'a "[[[[{{{{' * 300 + "\\"
    answer = chat(url, {**ASK, "messages": [{"role": "user", "content": text}]})
    assert "nests" not in answer.text
