"""``/v1/messages`` over a socket: golden events, and Anthropic's client where it is installed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lfm2gguf import Runner
from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.runner import Stream
from lfm2gguf.server import Limits
from tests.making.runners import CALL, literally
from tests.server.conftest import read, serving

ASK: list[Any] = [{"role": "user", "content": "What does str.split do?"}]
TOOL: dict[str, Any] = {
    "name": "get_time",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"anthropic-version": "2023-06-01"}) as made:
        yield made


def ask(http: httpx.Client, **asked: Any) -> dict[str, Any]:
    body = {"model": "tiny", "max_tokens": 300, "temperature": 0, "messages": ASK, **asked}
    answer = http.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()
    return message


def events_of(http: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    body = {"max_tokens": 300, "temperature": 0, "messages": ASK, "stream": True, **asked}
    answer = http.post("/v1/messages", json=body)
    lines = answer.text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line[:5] == "data:"]
    names = [line.removeprefix("event: ") for line in lines if line[:6] == "event:"]
    assert names == [event["type"] for event in events]
    return events


def test_a_text(http: httpx.Client, runner: Runner) -> None:
    expected = runner.chat(ASK, temperature=0.0, max_tokens=300)
    message = ask(http)
    assert message["content"] == [{"type": "text", "text": expected.text, "citations": None}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    usage = message["usage"]
    assert read(usage) == expected.usage.prompt_tokens
    assert usage["output_tokens"] == expected.usage.completion_tokens
    assert ask(http, max_tokens=2)["stop_reason"] == "max_tokens"
    word = expected.text.split()[1]
    cut = ask(http, stop_sequences=[word])
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", word)
    assert cut["content"][0]["text"] == expected.text[: expected.text.index(word)]


def test_the_system_prompt_and_blocks(http: httpx.Client) -> None:
    def count(**asked: Any) -> int:
        body = {"model": "tiny", "messages": ASK, **asked}
        tokens: int = http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
        return tokens

    blocks = [{"type": "text", "text": ASK[0]["content"], "cache_control": {"type": "ephemeral"}}]
    assert count(messages=[{"role": "user", "content": blocks}]) == count()
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert count(system=system) == count(system="Be brief.") > count()
    assert count(tools=[TOOL]) > count()
    assert read(ask(http, system=system, max_tokens=1)["usage"]) == count(system=system)


def test_what_a_text_may_stand_in(http: httpx.Client) -> None:
    """Documents, found passages and names of tools are text to the model, each said in full."""

    def count(block: Any) -> int:
        result = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
        body = {"messages": [{"role": "user", "content": [result]}]}
        answer = http.post("/v1/messages/count_tokens", json=body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["input_tokens"])

    def text(said: str) -> int:
        return count({"type": "text", "text": said})

    piece, more = {"type": "text", "text": "It is a list."}, {"type": "text", "text": "So."}
    both = [piece, more]
    found = {"type": "search_result", "source": "a.md", "title": "Lists", "content": both}
    assert count(found) == text("Lists\n\na.md\n\nIt is a list.\nSo.")
    assert count({"type": "tool_reference", "tool_name": "get_time"}) == text("get_time")
    for source in (
        {"type": "text", "media_type": "text/plain", "data": "It is a list.\nSo."},
        {"type": "content", "content": both},
        {"type": "content", "content": "It is a list.\nSo."},
    ):
        document = {"type": "document", "title": "Lists", "context": "Old", "source": source}
        assert count(document) == text("Lists\n\nOld\n\nIt is a list.\nSo.")
    turn = {"role": "user", "content": [found, {"type": "text", "text": "What is it?"}]}
    assert ask(http, messages=[turn], max_tokens=1)["content"]


def test_all_kinds_of_blocks(
    runner: Runner, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = literally("<think>Hm.</think>\n\nYes." + CALL)
    monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=said))
    message = ask(http, tools=[TOOL])
    thinking, text, call = message["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Hm.")
    assert (text["type"], text["text"]) == ("text", "Yes.")
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "get_time", {"city": "Rome"})
    assert message["stop_reason"] == "tool_use"
    events = events_of(http, tools=[TOOL])
    for event in events:
        event.pop("usage", None)
    assert events[0]["type"] == "message_start"
    assert events[0]["message"]["content"] == []
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(d.get("thinking", "") for d in deltas) == "Hm."
    assert "".join(d.get("text", "") for d in deltas) == "Yes."
    assert json.loads("".join(d.get("partial_json", "") for d in deltas)) == {"city": "Rome"}
    assert {"type": "signature_delta", "signature": ""} in deltas
    started = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
    assert started == ["thinking", "text", "tool_use"]
    bounds = [(e["type"], e["index"]) for e in events if "index" in e and "delta" not in e]
    ends = ("content_block_start", "content_block_stop")
    assert bounds == [(end, index) for index in range(3) for end in ends]
    ended = {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2:] == [{"type": "message_delta", "delta": ended}, {"type": "message_stop"}]
    said = literally("Noon.")
    monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=said))
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "12", "is_error": False}
    more = [{"role": "user", "content": [result, {"type": "text", "text": "So?"}]}]
    turns = [*ASK, {"role": "assistant", "content": message["content"]}, *more]
    assert ask(http, messages=turns, tools=[TOOL])["content"][0]["text"] == "Noon."


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_time"}])
def test_tools_that_must_be_called(http: httpx.Client, choice: Any) -> None:
    choice = {**choice, "disable_parallel_tool_use": True}
    (call,) = ask(http, tools=[TOOL], tool_choice=choice)["content"]
    assert call["name"] == "get_time"
    assert set(call["input"]) == {"city"}


def test_an_answer_bound_to_a_schema(http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "schema": schema}
    for asked in ({"output_config": {"format": form}}, {"output_format": form}):
        (text,) = ask(http, **asked)["content"]
        assert isinstance(json.loads(text["text"])["n"], int)


def test_images(vision_model: Runner, picture: bytes) -> None:
    data = base64.b64encode(picture).decode()
    source: dict[str, Any] = {"type": "base64", "media_type": "image/png", "data": data}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": blocks}]
    with serving(vision_model) as url, httpx.Client(base_url=url, timeout=60) as http:
        assert read(ask(http, messages=messages, max_tokens=2)["usage"]) > 80
        for bad in ("https://example.org/a.png", "/etc/passwd"):
            source |= {"type": "url", "url": bad}
            answer = http.post("/v1/messages", json={"max_tokens": 1, "messages": messages})
            assert answer.status_code == 400


@pytest.mark.parametrize(
    ("asked", "status", "kind", "said"),
    [
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"temperature": "hot"}, 400, "invalid_request_error", "temperature"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 400, "invalid_request_error",
         "no tool of type 'bash_20250124'"),
        ({"mcp_servers": [{"type": "url"}]}, 400, "invalid_request_error", "mcp_servers"),
        ({"messages": [{"role": "user", "content": "a " * 4000}]}, 400, "invalid_request_error",
         "tokens"),
    ],
)  # fmt: skip
def test_errors_have_anthropics_shape(
    http: httpx.Client, asked: Any, status: int, kind: str, said: str
) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        if path.endswith("tokens") and ("temperature" in asked or said == "tokens"):
            continue
        answer = http.post(path, json={"messages": ASK, **asked})
        assert answer.status_code == status
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["type"] == kind
        assert said in answer.json()["error"]["message"]


def test_keys_and_large_bodies(runner: Runner) -> None:
    limits = Limits(body_bytes=1000)
    with serving(runner, api_key="secret", limits=limits) as url, httpx.Client(base_url=url) as it:
        for headers in ({}, {"x-api-key": "other"}, {"authorization": "Bearer other"}):
            answer = it.post("/v1/messages", json={"messages": ASK}, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
        it.headers["x-api-key"] = "secret"
        assert it.get("/v1/models").status_code == 200
        assert ask(it, max_tokens=1)["usage"]["output_tokens"] == 1
        answer = it.post("/v1/messages", json={"messages": "a" * 2000})
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "request_too_large"


def test_a_failure_on_the_way_is_told(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(stream: Stream) -> Any:
        for piece in [piece async for piece in iterate(stream)][:2]:
            yield piece
        raise RuntimeFailureError("the device is gone")

    iterate = Stream.__aiter__
    monkeypatch.setattr(Stream, "__aiter__", failing)
    error = {"type": "api_error", "message": "the device is gone"}
    assert events_of(http, max_tokens=3)[-1] == {"type": "error", "error": error}


def test_anthropics_own_models(
    runner: Runner, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = pytest.importorskip("anthropic", reason="anthropic is not installed").types
    from pydantic import TypeAdapter

    said = literally("<think>Hm.</think>\n\nYes." + CALL)
    monkeypatch.setattr(runner, "defaults", runner.defaults.changed(grammar=said))
    types.Message.model_validate(ask(http, tools=[TOOL]))
    for event in events_of(http, tools=[TOOL]):
        TypeAdapter(types.RawMessageStreamEvent).validate_python(event)
